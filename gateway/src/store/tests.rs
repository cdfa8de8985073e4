//! The file, its layout, and what holds for every job.

use super::*;

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
    let (devices, requests) = store.load_devices().await.expect("it opens");
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
