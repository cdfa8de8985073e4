//! The lines that keys stand at. The JSON5 reader tells places of faults alone.

use std::collections::HashMap;

/// The line, from 1, of each key in `text`, which is JSON5 without a fault: path to line. Entries of lists are `[n]`.
pub(super) fn lines(text: &str) -> HashMap<Vec<String>, usize> {
    let mut scan = Scan { rest: text, line: 1, path: Vec::new(), lines: HashMap::new() };
    scan.value();
    scan.lines
}

struct Scan<'a> {
    rest: &'a str,
    line: usize,
    path: Vec<String>,
    lines: HashMap<Vec<String>, usize>,
}

impl Scan<'_> {
    fn value(&mut self) {
        match self.peek() {
            Some('{') => self.members(),
            Some('[') => self.items(),
            Some('"' | '\'') => {
                self.string();
            }
            _ => {
                self.word();
            }
        }
    }

    fn members(&mut self) {
        self.next();
        loop {
            match self.peek() {
                None => return,
                Some('}') => {
                    self.next();
                    return;
                }
                Some(',' | ':') => {
                    self.next();
                }
                Some(first) => {
                    let line = self.line;
                    let key = if matches!(first, '"' | '\'') { self.string() } else { self.word() };
                    self.below(key, line, |scan| {
                        if scan.peek() == Some(':') {
                            scan.next();
                        }
                        scan.value();
                    });
                }
            }
        }
    }

    fn items(&mut self) {
        self.next();
        let mut index = 0;
        loop {
            match self.peek() {
                None => return,
                Some(']') => {
                    self.next();
                    return;
                }
                Some(',') => {
                    self.next();
                }
                Some(_) => {
                    let line = self.line;
                    self.below(format!("[{index}]"), line, Self::value);
                    index += 1;
                }
            }
        }
    }

    fn below(&mut self, name: String, line: usize, read: impl FnOnce(&mut Self)) {
        self.path.push(name);
        self.lines.insert(self.path.clone(), line);
        read(self);
        self.path.pop();
    }

    /// The next character that is no blank and no comment.
    fn peek(&mut self) -> Option<char> {
        loop {
            let first = self.rest.chars().next()?;
            if self.rest.starts_with("//") {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                self.rest = &self.rest[end..];
            } else if self.rest.starts_with("/*") {
                let end = self.rest.find("*/").map_or(self.rest.len(), |end| end + 2);
                self.line += self.rest[..end].matches('\n').count();
                self.rest = &self.rest[end..];
            } else if first.is_whitespace() || first == '\u{feff}' {
                self.next();
            } else {
                return Some(first);
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let first = self.rest.chars().next()?;
        self.rest = &self.rest[first.len_utf8()..];
        self.line += usize::from(first == '\n');
        Some(first)
    }

    /// A text in quotation marks.
    fn string(&mut self) -> String {
        let mark = self.next();
        let mut text = String::new();
        while let Some(letter) = self.next() {
            if Some(letter) == mark {
                break;
            }
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            match self.next() {
                // The rare escapes give a name that is not found: the value then has the line of what it lies in.
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('\n') | None => {}
                Some(other) => text.push(other),
            }
        }
        text
    }

    /// A name, a number or a word.
    fn word(&mut self) -> String {
        let is_end = |letter: char| letter.is_whitespace() || ",:{}[]\"'/".contains(letter);
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        let word = self.rest[..end].to_owned();
        self.rest = &self.rest[end..];
        if word.is_empty() {
            // Whatever it is, go on behind it.
            self.next();
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_line() {
        let text = "// first {\n{\n  gateway: { /* { \n */ port: 0x10, 'bind': \"a // b\\\"}\",\n  },\n  \"a.b\": [\n    1, {x: -1.5e3},\n  ],\n}\n";
        let lines = lines(text);
        for (path, line) in [
            (&["gateway"][..], 3),
            (&["gateway", "port"], 4),
            (&["gateway", "bind"], 4),
            (&["a.b"], 6),
            (&["a.b", "[0]"], 7),
            (&["a.b", "[1]", "x"], 7),
        ] {
            let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(lines.get(&path), Some(&line), "{path:?}");
        }
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn any_text_comes_to_an_end() {
        for text in ["", "{", "[", "{a", "{a:", "'", "/*", "{]}", "[}", "}{", ":::", "{a:/b}"] {
            lines(text);
        }
    }
}
