//! What a model thinks aloud: servers that do not tell thoughts apart send them as text, between `<think>` and
//! `</think>`, at the head of the answer. They are no part of it.

/// The marks that open thoughts, each with the one that closes them.
const MARKS: [(&str, &str); 2] = [("<think>", "</think>"), ("<thinking>", "</thinking>")];

/// Takes thoughts out of text that comes in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Thoughts {
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing but blanks and what may be the beginning of a mark has come.
    Head(String),
    /// Within thoughts, up to `until`; the end of what came is kept as far as it may be part of that.
    Within { until: &'static str, end: String },
    /// The thoughts are over: blanks before the answer are none of it either.
    Behind,
    /// All that follows is the answer.
    Answer,
}

impl Default for State {
    fn default() -> Self {
        Self::Head(String::new())
    }
}

impl Thoughts {
    /// What of the next piece, and of what was held back, belongs to the answer.
    pub(super) fn answer_in(&mut self, piece: &str) -> String {
        if self.state == State::Answer {
            return piece.to_owned();
        }
        let mut text = piece.to_owned();
        loop {
            match &mut self.state {
                State::Answer => return text,
                State::Head(head) => {
                    head.push_str(&text);
                    let begun = head.trim_start();
                    if let Some((open, until)) = MARKS.iter().find(|(open, _)| begun.starts_with(open)) {
                        text = begun[open.len()..].to_owned();
                        self.state = State::Within { until, end: String::new() };
                        continue;
                    }
                    if MARKS.iter().any(|(open, _)| open.starts_with(begun)) {
                        return String::new();
                    }
                    text = std::mem::take(head);
                    self.state = State::Answer;
                }
                State::Within { until, end } => {
                    end.push_str(&text);
                    let Some(at) = end.find(*until) else {
                        // A mark that is cut in two is as long as itself at most.
                        let mut keep_from = end.len().saturating_sub(until.len());
                        while !end.is_char_boundary(keep_from) {
                            keep_from -= 1;
                        }
                        end.drain(..keep_from);
                        return String::new();
                    };
                    text = end[at + until.len()..].to_owned();
                    self.state = State::Behind;
                }
                State::Behind => {
                    text = text.trim_start().to_owned();
                    if text.is_empty() {
                        return text;
                    }
                    self.state = State::Answer;
                }
            }
        }
    }

    /// What was held back for a mark that never came. Nothing follows.
    pub(super) fn rest(&mut self) -> String {
        match std::mem::replace(&mut self.state, State::Answer) {
            State::Head(head) => head,
            State::Within { .. } | State::Behind | State::Answer => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_at_the_head_are_taken_out_however_they_are_cut() {
        for (said, answer) in [
            ("Hello you", "Hello you"),
            ("<think>Hm, 世界</think>\n\nHello", "Hello"),
            ("\n<thinking>Hm</thinking> Hello", "Hello"),
            ("<think></think>Hello", "Hello"),
            // No head, no thoughts: somebody explains how to write them.
            ("Write <think>a</think>", "Write <think>a</think>"),
            ("<thing>", "<thing>"),
            ("<thin", "<thin"),
            ("  ", "  "),
            // Thoughts without an end.
            ("<think>Hm", ""),
        ] {
            let whole = {
                let mut thoughts = Thoughts::default();
                thoughts.answer_in(said) + &thoughts.rest()
            };
            let mut thoughts = Thoughts::default();
            let mut cut: String = said.chars().map(|char| thoughts.answer_in(&char.to_string())).collect();
            cut.push_str(&thoughts.rest());
            assert_eq!((whole.as_str(), cut.as_str()), (answer, answer), "{said}");
        }
    }
}
