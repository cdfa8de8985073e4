//! The file, its layout, and what holds for every job.

use super::*;
use crate::{
    runs::Origin,
    sessions::{LastRun, RunEnd, Session, SessionAddress},
    transcripts::{Author, Entry},
};

#[tokio::test]
async fn the_file_is_private_and_made_at_the_first_job() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("gateway/gateway.sqlite");
    let store = Store::new(path.clone());
    assert!(!path.exists());
    store.load_devices().await.expect("it opens");
    for name in ["gateway.sqlite", "gateway.sqlite-wal", "gateway.sqlite-shm"] {
        let mode = path.with_file_name(name).metadata().expect("it exists").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_file_of_a_later_version_is_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("gateway.sqlite");
    Connection::open(&path).expect("it opens").pragma_update(None, "user_version", 99).expect("it writes");
    let error = Store::new(path).load_devices().await.expect_err("it is too new");
    assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_fails_every_job_and_is_kept() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("gateway.sqlite");
    std::fs::write(&path, "this is a text of some length, and no database").expect("it writes");
    let store = Store::new(path.clone());
    for _ in 0..2 {
        store.load_devices().await.expect_err("it is no database");
    }
    assert!(std::fs::read_to_string(&path).expect("it reads").starts_with("this is a text"));
}

#[tokio::test]
async fn a_file_of_an_earlier_layout_is_brought_up_to_date_and_keeps_what_it_holds() {
    // Written by the gateway of layout 1: a command line had connected with its key.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("gateway.sqlite");
    std::fs::write(&path, include_bytes!("fixtures/layout-1.sqlite")).expect("it writes");
    let store = Store::new(path.clone());
    let (devices, requests, _) = store.load_devices().await.expect("it opens");
    assert!(requests.is_empty());
    let [device] = &devices[..] else { panic!("one device, not {devices:?}") };
    assert_eq!(device.metadata.client_id, "cli");
    assert_eq!(device.tokens[0].scopes, ["operator.admin", "operator.read", "operator.write"]);
    let (open, counts) = store.recover().await.expect("the new tables are there");
    assert!(open.is_empty() && counts.is_empty());
    let version: usize = store
        .read(|connection| connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)))
        .await
        .expect("it reads") as usize;
    assert_eq!(version, MIGRATIONS.len());
    // Once is enough: the next start changes nothing.
    drop(store);
    assert_eq!(Store::new(path).load_devices().await.expect("it opens").0, devices);
}

#[tokio::test]
async fn runs_of_an_earlier_layout_are_read_and_taken_up() {
    // Written by the gateway of layout 2, which was killed over the run `k2`.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("gateway.sqlite");
    std::fs::write(&path, include_bytes!("fixtures/layout-2.sqlite")).expect("it writes");
    let store = Store::new(path);
    let (open, counts) = store.recover().await.expect("the new tables are there");
    let [open] = &open[..] else { panic!("one run, not {open:?}") };
    assert_eq!((open.run.run_id.as_str(), open.text.as_str()), ("k2", ""));
    assert_eq!(counts.values().sum::<u64>(), 1);
    let ended =
        store.run("k1".to_owned(), None, TimestampMs(0)).await.expect("it reads").expect("it is there");
    let outcome = ended.outcome.and_then(|result| result.outcome).expect("it ended");
    assert_eq!(outcome.summary, "completed");
    store.keep_text(open.seq, 0, "You ".to_owned()).await.expect("it can be kept");
    assert_eq!(store.recover().await.expect("it reads").0[0].text, "You ");
}

#[tokio::test]
async fn a_job_that_fails_takes_no_other_with_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::new(directory.path().join("gateway.sqlite"));
    // In the queue together, so that they are committed together.
    let jobs: Vec<_> = (0..100)
        .map(|number| {
            store.write(move |connection| {
                connection.execute("INSERT INTO transcripts (id) VALUES (?1)", [number / 2])
            })
        })
        .collect();
    let mut done = 0;
    for (number, job) in jobs.into_iter().enumerate() {
        let result = job.await;
        assert_eq!(result.is_ok(), number % 2 == 0, "{number}: {result:?}");
        done += usize::from(result.is_ok());
    }
    let count = store.read(|connection| {
        connection.query_row("SELECT count(*) FROM transcripts", [], |row| row.get::<_, u32>(0))
    });
    assert_eq!(count.await.expect("it reads") as usize, done);
}

fn address(key: &str, agent_id: &str) -> SessionAddress {
    let own = key.contains(":explicit:");
    SessionAddress { key: key.to_owned(), agent_id: agent_id.to_owned(), own }
}

fn new_run(run_id: &str, address: SessionAddress, at: u64) -> NewRun {
    NewRun {
        origin: Origin::Agent,
        run_id: run_id.to_owned(),
        address,
        accepted_at: TimestampMs(at),
        request: StoredRequest::default(),
    }
}

async fn accept(store: &Store, run: NewRun) -> (i64, Session) {
    match store.accept_run(run, TimestampMs(0)).await.expect("it is stored") {
        Acceptance::New { seq, session, .. } => (seq, *session),
        Acceptance::Known(known) => panic!("{known:?} is known already"),
    }
}

fn last_run(run_id: &str, at: u64, ended: bool) -> LastRun {
    use openclaw_schema::methods::{models::ModelInfo, sessions::SessionStatus};
    let model = ModelInfo {
        id: "m".to_owned(),
        name: String::new(),
        provider: "p".to_owned(),
        context_window: None,
        reasoning: false,
        tags: Vec::new(),
        thinking_levels: Vec::new(),
        thinking_default: None,
        available: None,
    };
    let end = RunEnd { at: TimestampMs(at), status: SessionStatus::Done, error: None, usage: None };
    LastRun { run_id: run_id.to_owned(), model, started_at: Some(TimestampMs(at)), end: ended.then_some(end) }
}

/// Says something in a session, and has it answered.
async fn talk(store: &Store, run_id: &str, address: SessionAddress, at: u64, text: &str) -> RunEndRecord {
    use openclaw_schema::methods::agent::{AgentWaitResult, TokenCost, TokenUsage, WaitStatus};
    let (seq, _) = accept(store, new_run(run_id, address.clone(), at)).await;
    let entry =
        |author: Author, text: &str| Entry { run_id: run_id.to_owned(), author, text: text.to_owned() };
    let user = entry(Author::User, text);
    let started =
        store.start_run(seq, address.clone(), TimestampMs(at), user, last_run(run_id, at, false)).await;
    let started = started.expect("it is stored").expect("it has not ended");
    let assistant = Author::Assistant {
        provider: "p".to_owned(),
        model: "m".to_owned(),
        usage: None,
        stop_reason: "stop".to_owned(),
        error: None,
    };
    let end = RunEndRecord {
        seq,
        at: TimestampMs(at),
        status: "ok",
        outcome: AgentWaitResult {
            run_id: run_id.to_owned(),
            status: WaitStatus::Ok,
            started_at: None,
            ended_at: None,
            stop_reason: None,
            error: None,
            outcome: None,
        },
        transcript: Some(started.session.transcript),
        entry: Some(entry(assistant, "answer")),
        session_key: address.key,
        agent_id: address.agent_id,
        last_run: last_run(run_id, at, true),
        usage: Some(TokenUsage {
            input: 1,
            output: 2,
            total: 3,
            cost: Some(TokenCost { total: 0.5 }),
            ..TokenUsage::default()
        }),
    };
    assert!(store.end_run(end.clone()).await.expect("it is stored").is_some());
    end
}

#[tokio::test]
async fn a_run_ends_once_and_all_that_follows_from_it_is_there_once() {
    let store = Store::inline();
    let end = talk(&store, "k1", address("agent:main:a", "main"), 1000, "hello").await;
    assert!(store.end_run(end).await.expect("it is answered").is_none(), "a second outcome changes nothing");
    let session = store.session("agent:main:a".to_owned()).await.expect("it reads").expect("it was used");
    assert_eq!(session.title.as_deref(), Some("hello"));
    let page = store.page(session.transcript, 0, 10, usize::MAX).await.expect("it reads");
    assert_eq!(page.total, 2);
    let usage = store.read(|connection| {
        connection.query_row(
            "SELECT runs, priced_runs, input_tokens, total_tokens, cost_usd FROM usage_daily",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )
    });
    assert_eq!(usage.await.expect("one row"), (1, 1, 1, 3, 0.5));
    let again = new_run("k1", address("agent:main:b", "main"), 2000);
    let known = store.accept_run(again.clone(), TimestampMs(999)).await.expect("it is answered");
    assert!(
        matches!(known, Acceptance::Known(run) if run.outcome.is_some() && run.address.key == "agent:main:a")
    );
    assert!(store.session("agent:main:b".to_owned()).await.expect("it reads").is_none());
    let forgotten = store.accept_run(again, TimestampMs(1000)).await.expect("it is answered");
    assert!(matches!(forgotten, Acceptance::New { .. }));
}

#[tokio::test]
async fn pages_go_back_from_the_newest_message_and_long_ones_are_short() {
    let store = Store::inline();
    for number in 1..=3 {
        talk(&store, &format!("k{number}"), address("agent:main:a", "main"), number, &format!("m{number}"))
            .await;
    }
    let session = store.session("agent:main:a".to_owned()).await.expect("it reads").expect("it was used");
    for (offset, limit, max_bytes, shown, next) in [
        (0, 10, usize::MAX, vec![1, 2, 3, 4, 5, 6], None),
        (0, 2, usize::MAX, vec![5, 6], Some(2)),
        (2, 3, usize::MAX, vec![2, 3, 4], Some(5)),
        (5, 2, usize::MAX, vec![1], None),
        (6, 2, usize::MAX, vec![], None),
        (usize::MAX, 2, usize::MAX, vec![], None),
        (0, 10, 1, vec![6], Some(1)),
    ] {
        let page = store.page(session.transcript, offset, limit, max_bytes).await.expect("it reads");
        let numbers: Vec<u64> = page.messages.iter().map(|message| message.seq).collect();
        assert_eq!((numbers, page.next_offset, page.total), (shown, next, 6), "{offset} {limit} {max_bytes}");
    }
    let after = store.messages_after(session.transcript, 4, 1, usize::MAX).await.expect("it reads");
    assert_eq!(after.iter().map(|message| message.seq).collect::<Vec<_>>(), [5]);

    // What a model is told: as much of the newest as there is room for, and the summary instead of what it stands for.
    let told = async |room| {
        let past = store.past(session.transcript, 6, room).await.expect("it reads");
        let texts = past.messages.iter().map(|message| message.entry.text.clone());
        (past.summary.clone(), texts.collect::<Vec<_>>().join(" "))
    };
    assert_eq!(told(9).await, (None, "answer m3".to_owned()), "eight bytes; the next would be two more");
    store.summarise(session.transcript, 2, "sum".to_owned()).await.expect("it is stored");
    assert_eq!(told(1000).await, (Some("sum".to_owned()), "m2 answer m3".to_owned()));
}

#[tokio::test]
async fn sessions_are_found_by_what_a_caller_asks_for() {
    let store = Store::inline();
    for (at, (key, agent, text)) in (1..).zip([
        ("global", "main", "everywhere"),
        ("agent:main:a", "main", "Fix the LÄMP in the hall"),
        ("agent:main:explicit:k7", "main", "hello"),
        ("agent:work:b", "Work", "plan"),
    ]) {
        talk(&store, key, address(key, agent), at, text).await;
    }
    let all = || ListFilter { limit: 100, ..ListFilter::default() };
    for (filter, expected) in [
        (all(), vec!["agent:work:b", "agent:main:explicit:k7", "agent:main:a", "global"]),
        (
            ListFilter { without: Some("global"), ..all() },
            vec!["agent:work:b", "agent:main:explicit:k7", "agent:main:a"],
        ),
        (ListFilter { agent_id: Some("Work".to_owned()), ..all() }, vec!["agent:work:b"]),
        (ListFilter { search: Some("the lämp".to_owned()), ..all() }, vec!["agent:main:a"]),
        (ListFilter { search: Some("k7".to_owned()), ..all() }, vec!["agent:main:explicit:k7"]),
        (ListFilter { since: Some(TimestampMs(4)), ..all() }, vec!["agent:work:b"]),
        (ListFilter { archived: Some(true), ..all() }, vec![]),
        (ListFilter { limit: 1, offset: 1, by_interaction: true, ..all() }, vec!["agent:main:explicit:k7"]),
    ] {
        let (sessions, total) = store.list_sessions(filter.clone()).await.expect("it reads");
        let keys: Vec<&str> = sessions.iter().map(|session| session.key.as_str()).collect();
        assert_eq!(keys, expected, "{filter:?}");
        assert!(total >= keys.len() as u64);
    }
}

#[tokio::test]
async fn what_is_kept_no_more_goes_a_little_at_a_time() {
    let store = Store::inline();
    for number in 1..=4 {
        talk(&store, &format!("k{number}"), address("agent:main:a", "main"), number * 10, "x").await;
    }
    talk(&store, "k5", address("agent:main:explicit:k5", "main"), 50, "x").await;
    let sweep = async |before, max_runs, limit| {
        store.sweep_runs(TimestampMs(before), max_runs, usize::MAX, limit).await.expect("it writes")
    };
    assert_eq!(sweep(11, 100, 10).await, 1, "older than the bound");
    assert_eq!(sweep(0, 2, 1).await, 1, "too many, one at a time");
    assert_eq!(sweep(0, 2, 10).await, 1);
    assert_eq!(sweep(0, 2, 10).await, 0);
    assert_eq!(store.sweep_sessions(TimestampMs(50), 10).await.expect("it writes"), Vec::<String>::new());
    assert_eq!(store.sweep_sessions(TimestampMs(51), 10).await.expect("it writes"), ["main"]);
    store.delete_session("agent:main:a".to_owned(), |_| Ok::<(), ()>(())).await.expect("it writes");
    let mut steps = 0;
    while store.sweep_messages(3).await.expect("it writes") > 0 {
        steps += 1;
        assert!(steps < 10);
    }
    assert!(steps > 3, "{steps}");
    let left = store.read(|connection| {
        let count = |table| {
            connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u32>(0))
        };
        Ok((count("messages")?, count("transcripts")?, count("sessions")?))
    });
    assert_eq!(left.await.expect("it reads"), (0, 0, 0));
}
