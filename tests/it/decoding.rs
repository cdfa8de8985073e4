//! The decoders of the frame protocol over the corpus of the fuzz targets and what grows from it, and what a real
//! gateway answers to the same.

use std::{collections::HashMap, fs, path::Path, sync::LazyLock};

use openclaw_gateway::decoders::{self, Connect, Frame};
use openclaw_schema::{
    document::params_schema,
    methods::{connect::ConnectMethod, gateway::GatewayMethod},
};
use openclaw_tests::{decoding, harness::TestGateway};
use proptest::{prelude::*, sample::Index, strategy::ValueTree as _};
use serde_json::Value;

use crate::{
    drift::workspace,
    frames::{command_line, connected, request},
};

/// What mutations put in: the words of the protocol, and the tokens of JSON that are easily got wrong.
const WORDS: &[&str] = &[
    "\"type\"",
    "\"req\"",
    "\"id\"",
    "\"method\"",
    "\"params\"",
    "\"connect\"",
    "\"client\"",
    "\"minProtocol\"",
    "\"auth\"",
    "\"device\"",
    "\"\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "0",
    "-1",
    "4",
    "1e999",
    "0.5",
    "18446744073709551616",
    "\\ud800",
    "\\u0000",
    "\\",
    "\"",
    "\u{feff}",
    "\u{e9}",
    " ",
    "\n",
    "\"id\":\"2\",",
    "\"id\":7,",
    "\"traceparent\":null,",
    "\"params\":[],",
    "\"minProtocol\":3,",
    "\"foo\":{},",
];

/// What is published of the params of `connect`.
static PARAMS: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = params_schema(ConnectMethod::Connect.record());
    jsonschema::draft7::new(&schema).expect("the schema is one")
});

/// `null` is as good as nothing for every optional member, which the schema does not say.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect(),
        other => other.clone(),
    }
}

/// The inputs of a fuzz target, in the order of their names.
fn corpus(target: &str) -> Vec<(String, String)> {
    let folder = workspace().join("tests/fuzz/corpus").join(target);
    let entries = fs::read_dir(folder).expect("the corpus can be read");
    let mut inputs: Vec<(String, String)> = entries
        .map(|entry| {
            let path = entry.expect("the corpus can be read").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("names are words");
            (name.to_owned(), read(&path))
        })
        .collect();
    inputs.sort();
    assert!(inputs.len() > 40, "only {} inputs for {target}", inputs.len());
    inputs
}

/// Messages are UTF-8 before they come to a decoder.
fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).expect("an input can be read")).into_owned()
}

/// One change of a text.
#[derive(Debug, Clone)]
enum Edit {
    Insert(Index, &'static str),
    Replace(Index, u8),
    Remove(Index, usize),
    Repeat(Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => (any::<Index>(), prop::sample::select(WORDS)).prop_map(|(at, word)| Edit::Insert(at, word)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        2 => (any::<Index>(), 1..20_usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        1 => (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Edit::Repeat(at, length)),
    ]
}

/// An input of the corpus after some changes.
fn grown(target: &str) -> impl Strategy<Value = String> + use<> {
    let inputs: Vec<String> = corpus(target).into_iter().map(|(_, text)| text).collect();
    (prop::sample::select(inputs), prop::collection::vec(edit(), 1..4)).prop_map(|(text, edits)| {
        let mut bytes = text.into_bytes();
        for edit in edits {
            let at = |index: Index| index.index(bytes.len() + 1);
            match edit {
                Edit::Insert(index, word) => {
                    let at = at(index);
                    bytes.splice(at..at, word.bytes());
                }
                Edit::Replace(index, byte) => {
                    // An index needs something to point into.
                    let at = index.index(bytes.len().max(1));
                    if let Some(place) = bytes.get_mut(at) {
                        *place = byte;
                    }
                }
                Edit::Remove(index, length) => {
                    let at = at(index);
                    bytes.drain(at..bytes.len().min(at + length));
                }
                Edit::Repeat(index, length) => {
                    let at = at(index);
                    let piece = bytes[at..bytes.len().min(at + length)].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[test]
fn the_corpus_holds_for_both_decoders() {
    for target in ["frame", "connect"] {
        for (name, text) in corpus(target) {
            let held = std::panic::catch_unwind(|| {
                decoding::frame(&text);
                decoding::connect(&text);
            });
            assert!(held.is_ok(), "{target}/{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn frames_that_grew_from_the_corpus_are_decoded_as_read_slowly(text in grown("frame")) {
        decoding::frame(&text);
    }

    #[test]
    fn handshakes_that_grew_from_the_corpus_are_decoded_as_read_slowly(text in grown("connect")) {
        decoding::connect(&text);
        decoding::frame(&text);
    }

    #[test]
    fn what_a_handshake_accepts_fits_the_published_schema(text in grown("connect")) {
        if let Connect::Params { .. } = decoders::connect(&text) {
            let frame: Value = serde_json::from_str(&text).expect("it was decoded");
            prop_assert!(PARAMS.is_valid(&without_nulls(&frame["params"])), "{text}");
        }
    }
}

/// The ids of a message's answers, and how many there are of each.
type Tally = HashMap<String, usize>;

#[tokio::test]
async fn a_gateway_answers_every_id_exactly_once() {
    let gateway = TestGateway::start().await;
    let (mut socket, _) = connected(&gateway, &command_line(&["operator.admin"])).await;
    let mut texts: Vec<String> = corpus("frame").into_iter().map(|(_, text)| text).collect();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = grown("frame");
    for _ in 0..3_000 {
        texts.push(strategy.new_tree(&mut runner).expect("a text grows").current());
    }
    let (mut expected, mut seen) = (Tally::new(), Tally::new());
    for text in &texts {
        match decoders::frame(text) {
            Frame::Request { id, .. } => *expected.entry(Value::from(id).to_string()).or_default() += 1,
            Frame::Answered(answer) => *expected.entry(id_of(&answer)).or_default() += 1,
            Frame::PassedOver => {}
        }
        socket.send(text).await;
    }
    let total: usize = expected.values().sum();
    assert!(total > 300, "only {total} answers are due");
    // The last one is answered when all that are ready at once have been; the others are waited for.
    socket.send(request("the last", GatewayMethod::Health.name(), &serde_json::json!({}))).await;
    expected.insert(r#""the last""#.to_owned(), 1);
    while seen.values().sum::<usize>() < total + 1 {
        let text = socket.next().await.expect("the connection stays open");
        if !text.starts_with(r#"{"type":"event""#) {
            *seen.entry(id_of(&text)).or_default() += 1;
        }
    }
    assert_eq!(seen, expected);
}

/// The id of an answer as it is written: it is the second member.
fn id_of(answer: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        id: &'a serde_json::value::RawValue,
    }
    serde_json::from_str::<Answer<'_>>(answer).expect("an answer is JSON").id.get().to_owned()
}
