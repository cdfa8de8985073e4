//! Server-sent events out of bytes, however these are cut. The HTML standard, section 9.2.6, without reconnecting.

/// The longest event that is taken, in bytes. A provider that sends more is broken.
const MAX_EVENT_BYTES: usize = 8 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Its name; empty when it has none.
    pub(super) name: String,
    /// Its data lines, joined by line feeds.
    pub(super) data: String,
}

/// An event is longer than the decoder takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Puts events together.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    name: String,
    data: Option<String>,
    /// The last line ended with a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    /// A line has been read: a byte order mark may stand before the first alone.
    began: bool,
}

impl Decoder {
    /// Takes the next bytes, and gives the events that they complete. An event that the stream does not complete is
    /// none.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.line.extend_from_slice(rest);
                break;
            };
            self.line.extend_from_slice(&rest[..end]);
            self.after_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            events.extend(self.end_line());
        }
        if self.line.len() + self.data.as_ref().map_or(0, String::len) > MAX_EVENT_BYTES {
            return Err(TooLong);
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        // Whole lines are decoded, so a character that two reads cut is whole here.
        let line = String::from_utf8_lossy(&line);
        let line = if std::mem::replace(&mut self.began, true) {
            &line
        } else {
            line.strip_prefix('\u{feff}').unwrap_or(&line)
        };
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return self.data.take().map(|data| Event { name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "event" => value.clone_into(&mut self.name),
            // Comments have an empty field; ids and pauses are for reconnecting.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::default();
        pieces.iter().flat_map(|piece| decoder.push(piece).expect("it is short")).collect()
    }

    fn data(text: &str) -> Vec<String> {
        decode(&[text.as_bytes()]).into_iter().map(|event| event.data).collect()
    }

    #[test]
    fn follows_the_standard() {
        assert_eq!(data("data: a\n\ndata:b\n\n"), ["a", "b"]);
        assert_eq!(data("data: a\ndata:  b\ndata\n\n"), ["a\n b\n"]);
        assert_eq!(data(": a comment\n\ndata: x\nid: 7\nretry: 9\nunknown: y\n\n"), ["x"]);
        assert_eq!(data("data: a\r\n\r\ndata: b\r\rdata: c\n\n"), ["a", "b", "c"]);
        assert_eq!(data("\u{feff}data: a\n\n"), ["a"]);
        assert_eq!(data("data: not ended\n"), [] as [&str; 0]);
        assert_eq!(data("event: lonely\n\ndata: x\n\n"), ["x"]);
        assert_eq!(
            decode(&[b"event: ping\ndata: {}\n\ndata: x\n\n"]),
            [
                Event { name: "ping".to_owned(), data: "{}".to_owned() },
                Event { name: String::new(), data: "x".to_owned() }
            ]
        );
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut decoder = Decoder::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..10).find_map(|_| decoder.push(&piece).err());
        assert_eq!(refused, Some(TooLong));
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(
            texts in prop::collection::vec("[a-zäß世🎉 :{}\"]{0,12}", 1..6),
            end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream: String = texts.iter().map(|text| format!(": note{end}data: {text}{end}{end}")).collect();
            let bytes = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let told: Vec<String> = decode(&pieces).into_iter().map(|event| event.data).collect();
            prop_assert_eq!(told, texts);
        }

        #[test]
        fn takes_any_bytes(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let whole = decode(&[&pieces.concat()]);
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(decode(&pieces), whole);
        }
    }
}
