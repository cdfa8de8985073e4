//! Pieces of Markdown that both references share.

/// The comment at the top of a generated page. `sources` says what to change instead.
#[must_use]
pub fn header(sources: &str) -> String {
    format!(
        "<!-- Written by `cargo codegen` from {sources}. Do not edit it: change the source and run `cargo codegen`. -->\n\n"
    )
}

/// A text in a table cell: one line, no cell borders.
#[must_use]
pub fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|").replace("\n\n", "<br>").replace('\n', " ")
}

/// A text as code; doubled back quotes where it has some itself.
#[must_use]
pub fn code(text: &str) -> String {
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

/// A table, or nothing without rows.
#[must_use]
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let rule = vec!["---".to_owned(); heads.len()];
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{}{rows}\n", line(&heads), line(&rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stay_within_their_borders() {
        let rows = [vec![code("a|b").replace('|', "\\|"), cell("one\ntwo | three\n\nfour")]];
        assert_eq!(
            table(&["Name", "Text"], &rows),
            "| Name | Text |\n| --- | --- |\n| `a\\|b` | one two \\| three<br>four |\n\n"
        );
        assert_eq!(table(&["Name"], &[]), "");
    }

    #[test]
    fn code_holds_back_quotes() {
        assert_eq!((code("a"), code("a`b")), ("`a`".to_owned(), "`` a`b ``".to_owned()));
    }
}
