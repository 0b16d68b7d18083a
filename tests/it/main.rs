//! The one integration binary: whole ways through real edges. One module a concern, helpers in
//! `support`.

mod admin;
mod bulk_jobs;
mod conformance;
mod crash;
mod credential_flow;
mod dashboard;
mod data_directory;
mod dependencies;
mod deploy;
mod doctor;
mod envelope;
mod faults;
mod hostile;
mod import;
mod ingress;
mod keys;
mod leaks;
mod ledger;
mod listener;
mod main_job;
mod operations;
mod otlp;
mod outside;
mod overload;
mod pauses;
mod postgres_connections;
mod postgres_isolation;
mod providers;
#[cfg(feature = "rabbitmq")]
mod queue_amqp;
#[cfg(feature = "rabbitmq")]
mod queue_amqp_broker;
#[cfg(feature = "rabbitmq")]
mod queue_amqp_faults;
#[cfg(all(feature = "rabbitmq", feature = "postgres"))]
mod queue_amqp_shares;
mod queue_damage;
mod queue_embedded;
mod queue_faults;
#[cfg(feature = "kafka")]
mod queue_kafka;
#[cfg(feature = "kafka")]
mod queue_kafka_faults;
#[cfg(feature = "kafka-tls")]
mod queue_kafka_tls;
mod queue_spool;
mod readiness;
mod recover;
mod rollback;
mod routing;
mod sandbox;
mod settings;
mod source;
mod ssrf;
mod start;
mod stop;
mod store_postgres;
mod store_sqlite;
mod support;
mod unknown_senders;
mod vault;
mod worker;
