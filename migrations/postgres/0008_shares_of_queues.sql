-- Which queues of a broker each worker consumes. Only here: a SQLite file belongs to one process, which consumes all of them. Adds only: the release
-- before it runs on this schema. No organisation's rows: only the worker's role sees them.
CREATE TABLE queue_workers (
    queue_group text COLLATE "C" NOT NULL, -- what the names of the queues begin with
    worker_id   uuid    NOT NULL,
    queues      text    NOT NULL, -- their numbers, separated by commas
    expires_at  bigint  NOT NULL, -- by the database's clock
    PRIMARY KEY (queue_group, worker_id)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON queue_workers TO hookswitch_worker;
