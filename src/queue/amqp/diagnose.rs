//! The checks of `doctor` for the broker and its queues. They make no queue, and what they publish
//! leads to none.

use super::{
    AmqpSettings,
    connection::{self, Link, LinkError},
    limits::offer,
    topology::{Seen, Topology},
    url::{self, Address},
};
use crate::telemetry::Diagnosis;
use futures_util::future::join_all;
use lapin::{
    Channel, ErrorKind,
    options::{BasicGetOptions, QueueDeleteOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
};
use std::time::Duration;
use uuid::Uuid;

const NAME: &str = "hookswitch doctor";
const PATIENCE: Duration = Duration::from_secs(10);
/// Room between our limit and the broker's.
const MARGIN_BYTES: usize = 16 << 10;
/// Older ones know quorum queues, and lose their dead letters.
const VERSION_MIN: (u32, u32) = (3, 10);

/// Asks the broker.
pub(in crate::queue) async fn diagnose(link: &str, settings: &AmqpSettings) -> Vec<Diagnosis> {
    let addresses = match url::addresses(link) {
        Ok(addresses) => addresses,
        Err(error) => {
            return vec![Diagnosis::fail(
                "rabbitmq settings",
                error.to_string(),
                "correct the setting",
            )];
        }
    };
    let opened = join_all(addresses.iter().map(|address| Link::open(address, settings, NAME))).await;
    let mut found = vec![brokers(&addresses, &opened)];
    let Some((address, link)) = addresses.iter().zip(opened).find_map(|(address, opened)| {
        let (link, _) = opened.ok()?;
        Some((address, link))
    }) else {
        return found;
    };
    found.push(version(connection::read_version(address, settings).await));
    let topology = Topology::new(settings);
    let seen = topology.look(&link).await;
    found.extend(queues(&seen, topology.queues.len(), settings));
    let probe = format!("{}.events.doctor-{}", settings.prefix, Uuid::now_v7());
    let (nowhere, bytes) = (probe.clone(), settings.event_bytes_max + MARGIN_BYTES);
    let written = ask(&link, |channel| async move { offer(&channel, &nowhere, bytes).await }).await;
    found.push(permissions(&link, &probe, &written).await);
    found.push(size(&written, settings));
    link.close().await;
    found
}

fn brokers<T>(addresses: &[Address], opened: &[Result<T, LinkError>]) -> Diagnosis {
    const CHECK: &str = "rabbitmq broker";
    let errors: Vec<String> = opened
        .iter()
        .filter_map(|one| Some(one.as_ref().err()?.to_string()))
        .collect();
    let answer = addresses.len() - errors.len();
    let found = || {
        format!(
            "{answer} of {} addresses let us in: {}",
            addresses.len(),
            errors.join("; ")
        )
    };
    if answer == 0 {
        return Diagnosis::fail(
            CHECK,
            found(),
            "start the broker, or correct user, password, virtual host and addresses in HOOKSWITCH_QUEUE_URL",
        );
    }
    if !errors.is_empty() {
        return Diagnosis::warn(
            CHECK,
            found(),
            "bring the other nodes back, or take them out of the URL",
        );
    }
    Diagnosis::ok(CHECK, format!("all of {answer} addresses let us in"))
}

/// Major and minor number.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn version(read: Result<Option<String>, LinkError>) -> Diagnosis {
    const CHECK: &str = "rabbitmq version";
    const CURE: &str = "run RabbitMQ 3.10 or newer";
    match read {
        Ok(Some(text)) => match numbers(&text) {
            Some(version) if version < VERSION_MIN => Diagnosis::fail(
                CHECK,
                format!("{text} has no quorum queues whose dead letters are safe"),
                CURE,
            ),
            Some(_) => Diagnosis::ok(CHECK, format!("{text}, which has quorum queues")),
            None => Diagnosis::warn(CHECK, format!("{text} is no version that we know"), CURE),
        },
        Ok(None) => Diagnosis::warn(CHECK, "the broker names no version", CURE),
        Err(error) => Diagnosis::warn(CHECK, format!("the broker did not greet a second time: {error}"), CURE),
    }
}

fn queues(seen: &Seen, count: usize, settings: &AmqpSettings) -> Vec<Diagnosis> {
    const QUEUES: &str = "rabbitmq queues";
    const LIMIT: &str = "rabbitmq delivery limit";
    const AGAIN: &str = "stop every process, empty the queue, delete it, and start: it is made again as it has to be";
    let is_about_limit = |reason: &&String| reason.contains("x-delivery-limit");
    let wrong: Vec<String> = seen
        .wrong
        .iter()
        .filter(|reason| !is_about_limit(reason))
        .cloned()
        .collect();
    let queues = if !wrong.is_empty() {
        Diagnosis::fail(
            QUEUES,
            format!("other arguments than ours: {}", wrong.join("; ")),
            AGAIN,
        )
    } else if !seen.silent.is_empty() {
        Diagnosis::fail(
            QUEUES,
            format!("these do not answer: {}", seen.silent.join("; ")),
            "bring the nodes back that hold them; docs/operations.md, HookswitchQueueSilent, has the rest",
        )
    } else if seen.missing > 0 {
        Diagnosis::ok(
            QUEUES,
            format!("{} of {count} do not exist yet; a start makes them", seen.missing),
        )
    } else {
        Diagnosis::ok(
            QUEUES,
            format!("all {count} exist, as quorum queues with our arguments"),
        )
    };
    let limit = match seen.wrong.iter().find(is_about_limit) {
        Some(reason) => Diagnosis::fail(LIMIT, reason.as_str(), AGAIN),
        None if seen.right == 0 => Diagnosis::ok(LIMIT, format!("{}, once a queue is made", settings.delivery_limit)),
        None => Diagnosis::ok(LIMIT, format!("{} redeliveries", settings.delivery_limit)),
    };
    vec![queues, limit]
}

/// Why the broker refused a request.
#[derive(Debug)]
enum BrokerRefusal {
    Permission,
    /// The queue of the request does not exist, so the request was permitted.
    Missing,
    Other(String),
}

/// The answer to a request on a channel of its own, because a refusal closes the channel.
async fn ask<T, F>(link: &Link, request: impl FnOnce(Channel) -> F) -> Result<T, BrokerRefusal>
where
    F: Future<Output = lapin::Result<T>>,
{
    let channel = link
        .channel()
        .await
        .map_err(|error| BrokerRefusal::Other(error.to_string()))?;
    match tokio::time::timeout(PATIENCE, request(channel)).await {
        Ok(answer) => answer.map_err(|error| refused(&error)),
        Err(_) => Err(BrokerRefusal::Other(format!(
            "no answer within {} seconds",
            PATIENCE.as_secs()
        ))),
    }
}

fn refused(error: &lapin::Error) -> BrokerRefusal {
    match error.kind() {
        ErrorKind::ProtocolError(protocol) => match protocol.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => BrokerRefusal::Permission,
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => BrokerRefusal::Missing,
            _ => BrokerRefusal::Other(error.to_string()),
        },
        _ => BrokerRefusal::Other(error.to_string()),
    }
}

/// The broker looks at permissions before it looks for the queue.
async fn permissions(link: &Link, probe: &str, written: &Result<(), BrokerRefusal>) -> Diagnosis {
    const CHECK: &str = "rabbitmq permissions";
    let name = probe.to_owned();
    let configure = ask(link, |channel| async move {
        let options = QueueDeleteOptions {
            if_unused: true,
            if_empty: true,
            ..QueueDeleteOptions::default()
        };
        channel.queue_delete(name.into(), options).await.map(drop)
    })
    .await;
    let name = probe.to_owned();
    let read = ask(link, |channel| async move {
        channel
            .basic_get(name.into(), BasicGetOptions::default())
            .await
            .map(drop)
    })
    .await;
    let asked = [("configure", &configure), ("write", written), ("read", &read)];
    let lacks: Vec<&str> = asked
        .iter()
        .filter(|(_, answer)| matches!(answer, Err(BrokerRefusal::Permission)))
        .map(|(name, _)| *name)
        .collect();
    if !lacks.is_empty() {
        return Diagnosis::fail(
            CHECK,
            format!("the user may not {}", lacks.join(", ")),
            "rabbitmqctl set_permissions -p VHOST USER '^PREFIX\\.' '^amq\\.default$|^PREFIX\\.' '^PREFIX\\.', with \
                the prefix of HOOKSWITCH_AMQP_PREFIX",
        );
    }
    let unknown = asked.iter().find_map(|(name, answer)| match answer {
        Err(BrokerRefusal::Other(why)) if *name != "write" => {
            Some(format!("whether it may {name} is not known: {why}"))
        }
        _ => None,
    });
    match unknown {
        Some(why) => Diagnosis::warn(CHECK, why, "see whether the broker has an alarm, and ask again"),
        None => Diagnosis::ok(CHECK, "the user may configure, write and read our queues"),
    }
}

fn size(written: &Result<(), BrokerRefusal>, settings: &AmqpSettings) -> Diagnosis {
    const CHECK: &str = "rabbitmq message size";
    let wanted = settings.event_bytes_max + MARGIN_BYTES;
    match written {
        Ok(()) | Err(BrokerRefusal::Missing) => {
            Diagnosis::ok(CHECK, format!("{wanted} bytes, more than an event may have"))
        }
        Err(BrokerRefusal::Permission) => Diagnosis::warn(
            CHECK,
            "not known: the user may not write",
            "give the user its permissions first",
        ),
        Err(BrokerRefusal::Other(why)) => Diagnosis::fail(
            CHECK,
            format!("a message of {wanted} bytes is not taken: {why}"),
            "raise max_message_size of the broker, or lower HOOKSWITCH_BODY_BYTES_MAX; an alarm of the broker stops \
                all messages",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Verdict;

    #[test]
    fn a_version_is_judged_by_its_numbers() {
        for (text, verdict) in [
            ("3.9.29", Verdict::Fail),
            ("3.10.8", Verdict::Ok),
            ("4.1.0", Verdict::Ok),
            ("next", Verdict::Warn),
        ] {
            assert_eq!(version(Ok(Some(text.to_owned()))).status, verdict, "{text}");
        }
        assert_eq!(version(Ok(None)).status, Verdict::Warn);
    }

    #[test]
    fn each_state_of_the_queues_has_its_verdict() {
        let settings = AmqpSettings::default();
        let judged = |seen: Seen| {
            let found = queues(&seen, 2, &settings);
            assert!(
                found
                    .iter()
                    .all(|one| (one.status == Verdict::Ok) == one.cure.is_empty())
            );
            (found[0].status, found[1].status)
        };
        let seen = Seen::default;
        assert_eq!(judged(Seen { right: 2, ..seen() }), (Verdict::Ok, Verdict::Ok));
        assert_eq!(judged(Seen { missing: 2, ..seen() }), (Verdict::Ok, Verdict::Ok));
        let limit = "inequivalent arg 'x-delivery-limit' for queue 'a'".to_owned();
        let wrong = vec![limit];
        assert_eq!(judged(Seen { wrong, ..seen() }), (Verdict::Ok, Verdict::Fail));
        let wrong = vec!["inequivalent arg 'x-queue-type' for queue 'a'".to_owned()];
        assert_eq!(judged(Seen { wrong, ..seen() }), (Verdict::Fail, Verdict::Ok));
        let silent = vec!["a".to_owned()];
        assert_eq!(judged(Seen { silent, ..seen() }), (Verdict::Fail, Verdict::Ok));
    }
}
