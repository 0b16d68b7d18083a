//! Faults that concern the value of a setting, or two settings together.

use super::{Fault, Settings};
use std::{net::ToSocketAddrs, time::Duration};

/// A lease has to outlast an exchange by this much at least, or no attempt ever begins.
const LEASE_MARGIN_MIN: Duration = Duration::from_secs(1);

pub(super) fn check(settings: &Settings, faults: &mut Vec<Fault>) {
    let mut fault = |name: &str, problem: String| {
        faults.push(Fault {
            name: name.to_owned(),
            problem,
        });
    };
    for (name, address) in [
        ("HOOKSWITCH_INGRESS_ADDRESS", &settings.receiver.ingress_address),
        ("HOOKSWITCH_ADMIN_ADDRESS", &settings.admin.admin_address),
        ("HOOKSWITCH_OPERATIONS_ADDRESS", &settings.admin.operations_address),
    ] {
        if !is_address(address) {
            fault(name, "expected HOST:PORT, such as 127.0.0.1:8080".to_owned());
        }
    }
    for (name, value) in numbers_above_zero(settings) {
        if value == 0 {
            fault(name, "expected at least 1".to_owned());
        }
    }
    for Fault { name, problem } in answers_before_the_spool(settings) {
        fault(&name, problem);
    }
    let worker = &settings.worker;
    let lease_min = worker.attempt_seconds_max + LEASE_MARGIN_MIN;
    if worker.lease_seconds < lease_min {
        fault(
            "HOOKSWITCH_LEASE_SECONDS",
            format!(
                "expected at least {} seconds, better 10 more than HOOKSWITCH_ATTEMPT_SECONDS_MAX: an attempt does not \
                begin where its lease may end before it",
                lease_min.as_secs_f64()
            ),
        );
    }
    if worker.backoff_seconds_min > worker.backoff_seconds_max {
        fault(
            "HOOKSWITCH_BACKOFF_SECONDS_MIN",
            "is more than HOOKSWITCH_BACKOFF_SECONDS_MAX".to_owned(),
        );
    }
    for (name, value) in [
        ("HOOKSWITCH_ATTEMPT_SECONDS_MAX", worker.attempt_seconds_max),
        ("HOOKSWITCH_HEAD_SECONDS_MAX", settings.receiver.head_seconds_max),
        ("HOOKSWITCH_BODY_SECONDS_MAX", settings.receiver.body_seconds_max),
        ("HOOKSWITCH_PUBLISH_SECONDS_MAX", settings.receiver.publish_seconds_max),
    ] {
        if value.is_zero() {
            fault(name, "expected more than 0 seconds".to_owned());
        }
    }
}

/// Times of the receiver that would end before the broker and the spool had theirs.
fn answers_before_the_spool(settings: &Settings) -> Vec<Fault> {
    let (queue, receiver) = (&settings.queue, &settings.receiver);
    let least = queue.durable_seconds_min();
    let times = [
        ("HOOKSWITCH_TURN_SECONDS_MAX", receiver.turn_seconds_max),
        ("HOOKSWITCH_PUBLISH_SECONDS_MAX", receiver.publish_seconds_max),
    ];
    let is_embedded = queue.queue_url.starts_with("embedded:");
    let early = times.into_iter().filter(|(_, time)| !is_embedded && *time < least);
    let fault = |(name, _): (&str, _)| Fault {
        name: name.into(),
        problem: format!(
            "senders would get 503 before the spool had its time: give at least {} seconds, which is \
            HOOKSWITCH_QUEUE_CONFIRM_SECONDS_MAX and {} more",
            least.as_secs_f64(),
            least.saturating_sub(queue.confirm_seconds_max).as_secs_f64()
        ),
    };
    early.map(fault).collect()
}

/// Limits that let nothing through where they are 0.
fn numbers_above_zero(settings: &Settings) -> [(&'static str, usize); 13] {
    let (receiver, worker) = (&settings.receiver, &settings.worker);
    [
        ("HOOKSWITCH_BODY_BYTES_MAX", receiver.body_bytes_max),
        ("HOOKSWITCH_HEAD_BYTES_MAX", receiver.head_bytes_max),
        ("HOOKSWITCH_HEADERS_MAX", receiver.headers_max),
        ("HOOKSWITCH_PATH_BYTES_MAX", receiver.path_bytes_max),
        ("HOOKSWITCH_CONNECTIONS_MAX", receiver.connections_max),
        (
            "HOOKSWITCH_CONNECTIONS_PER_ADDRESS_MAX",
            receiver.connections_per_address_max,
        ),
        ("HOOKSWITCH_REQUESTS_MAX", receiver.requests_max),
        ("HOOKSWITCH_PLAN_BATCH_MAX", worker.plan_batch_max),
        ("HOOKSWITCH_ATTEMPTS_CONCURRENT_MAX", worker.attempts_concurrent_max),
        (
            "HOOKSWITCH_ATTEMPTS_CONCURRENT_PER_ORG_MAX",
            worker.attempts_concurrent_per_org_max,
        ),
        ("HOOKSWITCH_CLAIM_TURN_MAX", worker.claim_turn_max as usize),
        ("HOOKSWITCH_ATTEMPTS_MAX", worker.attempts_max as usize),
        ("HOOKSWITCH_BREAKER_FAILURES", worker.breaker_failures as usize),
    ]
}

/// An IP address with a port, or a host name with one. A name is looked up when it is bound.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_name = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    port.parse::<u16>().is_ok() && !host.is_empty() && (is_name || text.to_socket_addrs().is_ok())
}
