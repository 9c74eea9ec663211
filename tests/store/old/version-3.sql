-- A database as version 3 of the schema has it. Not to be edited: every later version must open it.
PRAGMA application_id = 1365472356;
PRAGMA user_version = 3;
PRAGMA journal_mode = WAL;
BEGIN TRANSACTION;
CREATE TABLE attempts (
        job INTEGER NOT NULL REFERENCES jobs (number),
        number INTEGER NOT NULL,
        token TEXT NOT NULL,
        worker TEXT NOT NULL,
        started_at REAL NOT NULL,
        ended_at REAL,
        outcome TEXT,
        exit_code INTEGER,
        signal INTEGER,
        error TEXT,
        PRIMARY KEY (job, number)
    ) WITHOUT ROWID
    ;
INSERT INTO "attempts" VALUES(2,1,'token','w1',1700000000.0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES(3,1,'token','w1',1700000000.0,1700000000.0,'completed',0,NULL,NULL);
INSERT INTO "attempts" VALUES(4,1,'token','w1',1700000000.0,1700000000.0,'failed',1,NULL,'it failed');
INSERT INTO "attempts" VALUES(5,1,'token','w1',1700000000.0,1700000000.0,'failed',1,NULL,'it failed');
CREATE TABLE environments (
        number INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        variables TEXT NOT NULL
    );
INSERT INTO "environments" VALUES(1,X'3112F2529DA89DD6FB68452C1CEF35BA8B4E2040383D825418A9E27DC1850970','{"HOME":"/root","LANG":"C.UTF-8"}');
CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        digest BLOB NOT NULL,
        state TEXT NOT NULL
            CHECK (state IN ('pending', 'processing', 'completed', 'failed', 'dead', 'cancelled')),
        queue TEXT NOT NULL,
        priority INTEGER NOT NULL,
        run_at REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        max_retries INTEGER NOT NULL,
        timeout REAL NOT NULL,
        cancelling INTEGER NOT NULL DEFAULT 0,
        last_attempt INTEGER NOT NULL DEFAULT 0,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        exit_code INTEGER,
        exact_env INTEGER NOT NULL,
        environment INTEGER REFERENCES environments (number),
        label TEXT NOT NULL,
        cwd TEXT,
        error TEXT,
        command TEXT,
        argv TEXT
    , lane INTEGER);
INSERT INTO "jobs" VALUES(1,'pending-1',X'262A50F0BC871FCFE95A6FD5A961959DB4FA2BB153B0EB84937848BFEE1212B3','pending','default',2,1700000000.0,0,3,0.0,0,0,1700000000.0,1700000000.0,NULL,1,1,'old','/tmp',NULL,NULL,'["printf","%s\n","it''s ☃"]',1);
INSERT INTO "jobs" VALUES(2,'processing-1',X'6BDE0622924E7F5180CD5F0C5854577E3CFA5CDEE7AEBC3DB90377D2C29B34FD','processing','default',2,1700000000.0,1,3,0.0,0,1,1700000000.0,1700000000.0,NULL,1,1,'old','/tmp',NULL,NULL,'["printf","%s\n","it''s ☃"]',NULL);
INSERT INTO "jobs" VALUES(3,'completed-1',X'FC880DC9E2B7E44CE35DF425E39CF2F28C330559A2D4125626F9F3A490442A9C','completed','default',2,1700000000.0,1,3,0.0,0,1,1700000000.0,1700000000.0,0,1,1,'old','/tmp',NULL,NULL,'["printf","%s\n","it''s ☃"]',NULL);
INSERT INTO "jobs" VALUES(4,'failed-1',X'2AF1E8657702F55C4C92668C3FF50541D71CE46A99AEA065A328EA8105B6E83C','failed','default',2,1700000000.0,1,3,0.0,0,1,1700000000.0,1700000000.0,1,1,1,'old','/tmp','it failed',NULL,'["printf","%s\n","it''s ☃"]',1);
INSERT INTO "jobs" VALUES(5,'dead-1',X'D69CDECAE1CAF71C67F90182B18EA8E4DEE8A0B2E4DA4406A4E8F709F96F1F6C','dead','default',2,1700000000.0,1,3,0.0,0,1,1700000000.0,1700000000.0,1,1,1,'old','/tmp','it failed',NULL,'["printf","%s\n","it''s ☃"]',NULL);
INSERT INTO "jobs" VALUES(6,'cancelled-1',X'640B868A595BBF619643495087B58514AF475930A089BF022D5291B7F9FC7D70','cancelled','default',2,1700000000.0,0,3,0.0,0,0,1700000000.0,1700000000.0,NULL,1,1,'old','/tmp',NULL,NULL,'["printf","%s\n","it''s ☃"]',NULL);
INSERT INTO "jobs" VALUES(7,'later',X'DD207252E1E6E6DE138D49B90E8CBF7A041564E3E7F799B130332ACDB24908BD','pending','other',0,1700000060.0,0,3,1.5,0,0,1700000000.0,1700000000.0,NULL,0,NULL,'',NULL,NULL,'sleep 1; echo ''x''',NULL,2);
CREATE TABLE lanes (
        number INTEGER PRIMARY KEY,
        queue TEXT NOT NULL,
        priority INTEGER NOT NULL,
        UNIQUE (queue, priority)
    );
INSERT INTO "lanes" VALUES(1,'default',2);
INSERT INTO "lanes" VALUES(2,'other',0);
CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('identity','00112233445566778899aabbccddeeff');
CREATE TABLE settings (key TEXT NOT NULL PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
INSERT INTO "settings" VALUES('backoff_base',1.5);
INSERT INTO "settings" VALUES('max_retries',5);
CREATE TABLE totals (
        the_only INTEGER PRIMARY KEY CHECK (the_only = 1),
        pending INTEGER NOT NULL,
        processing INTEGER NOT NULL,
        completed INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        dead INTEGER NOT NULL,
        cancelled INTEGER NOT NULL,
        last_seen_time REAL NOT NULL,
        desired_workers INTEGER NOT NULL
    );
INSERT INTO "totals" VALUES(1,2,1,1,1,1,1,1700000000.0,2);
CREATE TABLE workers (
        id TEXT NOT NULL PRIMARY KEY,
        boot_id TEXT NOT NULL,
        pid INTEGER NOT NULL,
        start_ticks INTEGER NOT NULL,
        started_at REAL NOT NULL
    ) WITHOUT ROWID
    ;
INSERT INTO "workers" VALUES('w1','00000000-0000-4000-8000-000000000000',4321,987654,1700000000.0);
CREATE UNIQUE INDEX jobs_by_id ON jobs (id);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_queue ON jobs (queue);
CREATE INDEX jobs_by_environment ON jobs (environment) WHERE environment IS NOT NULL;
CREATE INDEX jobs_waiting ON jobs (lane, run_at) WHERE lane IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',8);
COMMIT;
