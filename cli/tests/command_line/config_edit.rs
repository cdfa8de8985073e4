//! `gateway config set` and `unset`: the file, its backups, and what is refused.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::PathBuf,
};

use serde_json::json;

use crate::process::{Home, Outcome};

const FILE: &str = ".openclaw/openclaw.json";
const TEXT: &str = "// mine\n{\n  gateway: { mode: 'local' }, // here\n  /* others */\n  channels: {},\n}\n";

/// The user without rights, on every system that has one.
const NOBODY: u32 = 65534;

fn home() -> Home {
    let home = Home::new();
    home.write(FILE, TEXT);
    home
}

fn text(home: &Home) -> String {
    fs::read_to_string(home.path().join(FILE)).expect("it reads")
}

fn backup(home: &Home) -> PathBuf {
    home.path().join(format!("{FILE}.bak"))
}

#[test]
fn a_value_is_set_and_taken_out_again_and_the_rest_stays() {
    let home = home();
    let set = home.run(["gateway", "config", "set", "gateway.port", "19001"]);
    assert!(set.ok().starts_with("set: gateway.port in "), "{set:?}");
    assert_eq!(
        text(&home),
        TEXT.replace("mode: 'local' }", "mode: 'local',\n    port: 19001\n  }")
            .replace("{ mode", "{\n    mode")
    );
    assert_eq!(fs::read_to_string(backup(&home)).expect("it is kept"), TEXT);
    let again = home.run(["gateway", "config", "set", "gateway.port", "19001", "--json"]).json(0);
    assert_eq!((&again["changed"], &again["backup"]), (&json!(false), &json!(null)));
    home.run(["gateway", "config", "unset", "gateway.port"]).ok();
    assert!(text(&home).contains("// here") && !text(&home).contains("port"), "{}", text(&home));
    let missing = home.run(["gateway", "config", "unset", "gateway.port"]);
    assert!(missing.refused(1).contains("gateway.port is not set"), "{missing:?}");
}

#[test]
fn a_first_value_makes_the_file_for_its_owner_alone() {
    let home = Home::new();
    home.run(["gateway", "config", "set", "gateway.mode", "local"]).ok();
    let file = home.path().join(FILE);
    assert_eq!(text(&home), "{\n  \"gateway\": {\n    \"mode\": \"local\"\n  }\n}\n");
    assert_eq!(fs::metadata(file).expect("it is there").mode() & 0o777, 0o600);
}

#[test]
fn what_a_start_would_refuse_is_refused_and_nothing_is_written() {
    let home = home();
    for (args, code, words) in [
        (&["logging.level", "loud"][..], 78, "logging.level"),
        (&["gateway.prot", "1"], 78, "did you mean `port`?"),
        (&["gateway.bind", "lan"], 78, "refusing to listen"),
        (&["gateway.bind", "custom"], 78, "gateway.customBindHost"),
        (&["gateway..port", "1"], 2, "is not a path"),
        (&["gateway.mode.x", "1"], 2, "gateway.mode is a text"),
        (&["gateway.auth.token", "__OPENCLAW_REDACTED__"], 2, "stands in the place of a secret"),
        (&["gateway.port", "12 34", "--strict-json"], 2, "not JSON"),
    ] {
        for dry_run in [&[][..], &["--dry-run"]] {
            let refused = home.run([&["gateway", "config", "set"][..], args, dry_run].concat());
            assert!(refused.refused(code).contains(words), "{args:?}: {refused:?}");
            assert!(text(&home) == TEXT && !backup(&home).exists());
        }
    }
    // What lies with this shell alone is told.
    let set = home.run(["gateway", "config", "set", "gateway.auth.token", "${NOT_SET_HERE}"]);
    assert!(set.stderr.contains("NOT_SET_HERE") && set.code == Some(0), "{set:?}");
}

#[test]
fn a_dry_run_writes_nothing() {
    let home = home();
    let dry = home.run(["gateway", "config", "set", "agents.entries.a", "{}", "--dry-run", "--json"]).json(0);
    assert_eq!(
        (&dry["changed"], &dry["dryRun"], &dry["waitsForRestart"][0]),
        (&json!(true), &json!(true), &json!("agents"))
    );
    assert_eq!(text(&home), TEXT);
}

#[test]
fn a_secret_need_not_stand_in_the_list_of_processes() {
    let home = home();
    fs::set_permissions(home.path().join(FILE), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let args = ["gateway", "config", "set", "gateway.auth.token", "--stdin", "--string"];
    let set = home.run_with_input(args, "12345678901234567890\n");
    assert!(!set.ok().contains("1234567890") && !set.stderr.contains("1234567890"), "{set:?}");
    assert!(text(&home).contains("\"12345678901234567890\""), "{}", text(&home));
    assert_eq!(fs::metadata(home.path().join(FILE)).expect("it is there").mode() & 0o777, 0o600);
    let file = home.write("secret.txt", "another-token-of-mine\n");
    let file = file.to_str().expect("a text");
    home.run(["gateway", "config", "set", "gateway.auth.token", "--value-file", file]).ok();
    assert!(text(&home).contains("\"another-token-of-mine\""));
}

#[test]
fn a_file_that_cannot_be_edited_in_place_is_left_alone_unless_that_is_said() {
    let home = home();
    // Of a key that is there twice, the last one counts.
    let twice = "{ gateway: { mode: 'remote' }, gateway: { mode: 'local' } }";
    home.write(FILE, twice);
    let refused = home.run(["gateway", "config", "set", "gateway.mode", "remote"]);
    assert!(refused.refused(1).contains("--rewrite"), "{refused:?}");
    assert_eq!(text(&home), twice);
    home.run(["gateway", "config", "set", "gateway.mode", "remote", "--rewrite"]).ok();
    assert_eq!(text(&home), "{\n  \"gateway\": {\n    \"mode\": \"remote\"\n  }\n}\n");
    home.write(FILE, "{ gateway: ");
    let broken = home.run(["gateway", "config", "set", "gateway.port", "1"]);
    assert!(broken.refused(78).contains("openclaw.json:1:"), "{broken:?}");
}

#[test]
fn a_directory_that_may_not_be_written_is_named() {
    if !rustix::process::geteuid().is_root() {
        // Only the administrator can become somebody else.
        return;
    }
    let home = home();
    let directory = home.path().join(".openclaw");
    for path in [home.path(), &directory, &home.path().join(FILE)] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    chown(&directory, Some(0), Some(0)).expect("it is ours");
    let mut command = home.command(["gateway", "config", "set", "gateway.port", "1"]);
    let refused = Outcome::of(command.uid(NOBODY).output().expect("the binary starts"));
    let said = refused.refused(1);
    assert!(
        said.contains("Permission denied") && said.contains(directory.to_str().expect("a text")),
        "{said}"
    );
    assert_eq!(text(&home), TEXT);
}

#[test]
fn variables_of_the_state_directory_count_in_the_check() {
    let home = Home::new();
    home.write(".openclaw/.env", "MINE=0123456789abcdef0123\n");
    home.write(".openclaw/openclaw.json", "{gateway: {mode: 'local', auth: {token: '${MINE}'}}}");
    let set = ["gateway", "config", "set", "logging.level", "debug", "--json"];
    assert_eq!(home.run(set).json(0)["warnings"], json!([]));
}
