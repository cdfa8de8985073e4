//! Files of variables, `.env`: what their lines assign.

/// Each line of `text` that says something, with its number from 1: the name and the value that it assigns, or nothing
/// when it assigns none.
///
/// A line is `NAME=VALUE`, `export` may stand before it. Blank lines and those that begin with `#` say nothing. A value
/// in single quotes is taken as it is, one in double quotes may have `\\n`, `\\"` and `\\\\`; without quotes it ends
/// at a `#` after a blank, and blanks around it are left out.
pub(super) fn assignments(text: &str) -> impl Iterator<Item = (usize, Option<(String, String)>)> {
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    lines
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| (number, assignment(line)))
}

fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    if name.is_empty()
        || name.starts_with(|first: char| first.is_ascii_digit())
        || !name.chars().all(is_letter)
    {
        return None;
    }
    let value = value.trim();
    let value = match value.chars().next() {
        Some('\'') => {
            let (inside, after) = value[1..].split_once('\'')?;
            ends(after)?;
            inside.to_owned()
        }
        Some('"') => double_quoted(&value[1..])?,
        _ => {
            let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
            value[..end].trim_end().to_owned()
        }
    };
    Some((name.to_owned(), value))
}

/// What stands before the closing mark.
fn double_quoted(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut letters = text.chars();
    loop {
        match letters.next()? {
            '"' => {
                ends(letters.as_str())?;
                return Some(value);
            }
            '\\' => match letters.next()? {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                other => value.push(other),
            },
            letter => value.push(letter),
        }
    }
}

/// Behind a quoted value there is a comment at most.
fn ends(after: &str) -> Option<()> {
    let after = after.trim();
    (after.is_empty() || after.starts_with('#')).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_assign_as_shells_would() {
        for (line, expected) in [
            ("A=1", Some(("A", "1"))),
            ("export A_2 = two words # a comment", Some(("A_2", "two words"))),
            ("A=x#y", Some(("A", "x#y"))),
            ("A='a # $b \\n' # c", Some(("A", "a # $b \\n"))),
            ("A=\"a\\n\\\"b\\\\\"", Some(("A", "a\n\"b\\"))),
            ("A=", Some(("A", ""))),
            ("A=a=b", Some(("A", "a=b"))),
            ("A", None),
            ("1A=x", None),
            ("A B=x", None),
            ("A='x", None),
            ("A=\"x\" y", None),
        ] {
            let found: Vec<_> = assignments(line).collect();
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(found, [(1, expected)], "{line}");
        }
        assert_eq!(assignments("\u{feff}# x\r\n\r\nA=1\r\n").collect::<Vec<_>>().len(), 1);
    }
}
