//! The steps from an empty file to the layout of today.

/// `PRAGMA user_version` counts those that were done; a step that was released is never changed.
pub(super) const MIGRATIONS: &[&str] = &[
    // Devices.
    "
    CREATE TABLE devices (
        device_id TEXT PRIMARY KEY,
        public_key TEXT NOT NULL,
        client_id TEXT NOT NULL,
        client_mode TEXT NOT NULL,
        platform TEXT,
        device_family TEXT,
        display_name TEXT,
        label TEXT,
        role TEXT NOT NULL,
        remote_ip TEXT,
        approved_via TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        approved_at_ms INTEGER NOT NULL,
        last_seen_at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE device_tokens (
        device_id TEXT NOT NULL REFERENCES devices ON DELETE CASCADE,
        role TEXT NOT NULL,
        token TEXT NOT NULL,
        scopes TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        rotated_at_ms INTEGER,
        PRIMARY KEY (device_id, role)
    ) STRICT;
    CREATE TABLE pairing_requests (
        request_id TEXT PRIMARY KEY,
        device_id TEXT NOT NULL UNIQUE,
        public_key TEXT NOT NULL,
        client_id TEXT NOT NULL,
        client_mode TEXT NOT NULL,
        platform TEXT,
        device_family TEXT,
        display_name TEXT,
        role TEXT NOT NULL,
        scopes TEXT NOT NULL,
        reason TEXT NOT NULL,
        remote_ip TEXT NOT NULL,
        is_repair INTEGER NOT NULL,
        created_at_ms INTEGER NOT NULL
    ) STRICT;
",
    // Runs, sessions and transcripts.
    "
    CREATE TABLE transcripts (
        id INTEGER PRIMARY KEY,
        -- How many messages it has; they are numbered from 1 without a hole.
        messages INTEGER NOT NULL DEFAULT 0,
        -- What stands for the messages up to `summary_until` when the context of a run is put together.
        summary TEXT,
        summary_until INTEGER NOT NULL DEFAULT 0,
        -- No session has it any more: it is deleted piece by piece.
        dropped INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX transcripts_dropped ON transcripts (id) WHERE dropped = 1;
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        transcript INTEGER NOT NULL REFERENCES transcripts,
        seq INTEGER NOT NULL,
        uid TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        run_id TEXT NOT NULL,
        author TEXT NOT NULL,
        text TEXT NOT NULL,
        UNIQUE (transcript, seq)
    ) STRICT;
    CREATE TABLE sessions (
        key TEXT PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        agent_id TEXT NOT NULL,
        revision TEXT NOT NULL,
        transcript INTEGER NOT NULL REFERENCES transcripts,
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        last_interaction_at_ms INTEGER NOT NULL,
        -- Made for one run alone.
        own INTEGER NOT NULL,
        title TEXT,
        label TEXT UNIQUE,
        archived INTEGER NOT NULL DEFAULT 0,
        settings TEXT NOT NULL DEFAULT '{}',
        last_run TEXT,
        -- What a search looks into, in lower case.
        search TEXT NOT NULL
    ) STRICT;
    CREATE INDEX sessions_updated ON sessions (updated_at_ms);
    CREATE TABLE runs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        origin TEXT NOT NULL,
        run_id TEXT NOT NULL,
        session_key TEXT NOT NULL,
        own_session INTEGER NOT NULL,
        agent_id TEXT NOT NULL,
        status TEXT NOT NULL,
        accepted_at_ms INTEGER NOT NULL,
        started_at_ms INTEGER,
        ended_at_ms INTEGER,
        -- What is asked; kept until the run starts.
        request TEXT,
        transcript INTEGER,
        -- How it ended, and how much that takes.
        outcome TEXT,
        bytes INTEGER NOT NULL DEFAULT 0,
        UNIQUE (origin, run_id)
    ) STRICT;
    CREATE INDEX runs_open ON runs (seq) WHERE ended_at_ms IS NULL;
    CREATE INDEX runs_ended ON runs (ended_at_ms, seq, bytes) WHERE ended_at_ms IS NOT NULL;
    CREATE TABLE usage_daily (
        -- Of UTC, as days since 1970-01-01.
        day INTEGER NOT NULL,
        agent_id TEXT NOT NULL,
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        runs INTEGER NOT NULL,
        -- Those among them whose cost is known.
        priced_runs INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL,
        total_tokens INTEGER NOT NULL,
        cost_usd REAL NOT NULL,
        PRIMARY KEY (day, agent_id, provider, model)
    ) STRICT, WITHOUT ROWID;
    ",
    // What runs have said while they go on.
    "
    CREATE TABLE run_texts (
        run INTEGER NOT NULL,
        -- The byte of the text that the piece begins at.
        start INTEGER NOT NULL,
        piece TEXT NOT NULL,
        PRIMARY KEY (run, start)
    ) STRICT, WITHOUT ROWID;
    ",
    // Setup codes.
    "
    CREATE TABLE setup_codes (
        setup_id TEXT PRIMARY KEY,
        -- SHA-256 of the token.
        digest BLOB NOT NULL,
        access TEXT NOT NULL,
        expires_at_ms INTEGER NOT NULL,
        -- The device that it has paired.
        device_id TEXT,
        device_name TEXT,
        completed_at_ms INTEGER
    ) STRICT;
    ",
];
