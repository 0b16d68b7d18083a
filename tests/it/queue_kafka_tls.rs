//! Kafka over TLS, and with a user: needs a build with the feature `kafka-tls`.

use crate::{
    conformance::queue::{delivered, event, id_of, take, within},
    support::{dev::Directory, kafka::Server, until},
};
use hookswitch::{
    domain::OrgId,
    queue::{EventQueue, KafkaQueue, KafkaSettings, PublishError},
};
use std::{fs, path::PathBuf, sync::Arc};

const USER: &str = "hookswitch";
const PASSWORD: &str = "a-password-of-the-test";

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/tls")
        .join(name)
}

/// A broker with a certificate of the test's own authority, and its two encrypted addresses: for
/// everybody, and for users.
fn start(place: &Directory) -> Option<(Server, [String; 2])> {
    // Kafka reads key and certificate from one file.
    let pair = place.path().join("pair.pem");
    let texts = ["server.key", "server.pem"].map(|name| fs::read_to_string(data(name)).expect("it is there"));
    fs::write(&pair, texts.concat()).expect("a writable directory");
    let properties = format!(
        "ssl.keystore.type=PEM\nssl.keystore.location={}\nsasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
        listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
        org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
        listener.name.sasl_ssl.plain.sasl.jaas.config=\
        org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";",
        pair.display()
    );
    let base = crate::support::dev::port_base();
    let [open, users] = [base, base + 1].map(|port| format!("127.0.0.1:{port}"));
    let listeners = format!("SSL://{open},SASL_SSL://{users}");
    let server = Server::start_with(vec![
        ("HOOKSWITCH_SERVICES_KAFKA_LISTENERS", listeners.clone()),
        ("HOOKSWITCH_SERVICES_KAFKA_ADVERTISED", listeners),
        ("HOOKSWITCH_SERVICES_KAFKA_PROPERTIES", properties),
        (
            "HOOKSWITCH_SERVICES_KAFKA_SCRAM",
            format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]"),
        ),
    ])?;
    Some((server, [open, users].map(|address| format!("kafka://{address}"))))
}

fn trusting(settings: &KafkaSettings) -> KafkaSettings {
    KafkaSettings {
        tls: true,
        tls_ca_file: Some(data("ca.pem").display().to_string()),
        ..settings.clone()
    }
}

fn user(settings: &KafkaSettings, mechanism: &str, password: &str) -> KafkaSettings {
    KafkaSettings {
        sasl_mechanism: Some(mechanism.to_owned()),
        sasl_username: Some(USER.to_owned()),
        sasl_password: Some(password.to_owned().into()),
        ..trusting(settings)
    }
}

async fn carries(url: &str, settings: KafkaSettings) {
    let queue: Arc<dyn EventQueue> = Arc::new(KafkaQueue::open(url, settings).await.expect("the queue opens"));
    let event = event(OrgId::generate(), "call", "encrypted");
    until("an event to be confirmed", || async {
        queue.publish(&event).await.ok()
    })
    .await;
    let mut deliveries = queue.consume().await.expect("a consumer");
    assert_eq!(delivered(&take(&mut deliveries, 1).await[0]).id, id_of(&event));
    within(deliveries.ack(&[])).await.expect("nothing to ack");
    drop(deliveries);
    queue.close().await;
}

/// Why the queue did not open.
async fn refused(url: &str, settings: KafkaSettings) -> String {
    let opened = KafkaQueue::open(url, settings).await;
    opened
        .err()
        .expect("the broker and this client distrust each other")
        .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_checks_the_certificate_and_users_have_to_know_their_password() {
    let place = Directory::new();
    let Some((server, [open, users])) = tokio::task::block_in_place(|| start(&place)) else {
        return;
    };
    let topic = || server.topic(1);
    for (url, of) in [
        (&open, trusting as fn(&KafkaSettings) -> KafkaSettings),
        (&users, |settings| user(settings, "SCRAM-SHA-512", PASSWORD)),
        (&users, |settings| user(settings, "PLAIN", PASSWORD)),
    ] {
        let topic = topic();
        carries(url, of(&topic.settings)).await;
    }
    let topic = topic();
    // Nobody whom this process trusts has signed it.
    let unsigned = KafkaSettings {
        tls_ca_file: None,
        ..trusting(&topic.settings)
    };
    let why = refused(&open, unsigned).await;
    assert!(why.contains("certificate verify failed"), "{why}");
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let why = refused(&users, user(&topic.settings, mechanism, "a wrong one")).await;
        assert!(
            why.contains("uthentication failed") && !why.contains("a wrong one"),
            "{why}"
        );
    }
    // A broker says nothing to a client that does not authenticate, and hangs up.
    let without_user = KafkaQueue::open(&users, trusting(&topic.settings))
        .await
        .expect("it may be away");
    let outcome = without_user
        .publish(&event(OrgId::generate(), "call", "encrypted"))
        .await;
    assert!(matches!(outcome, Err(PublishError::Unavailable { .. })), "{outcome:?}");
    without_user.close().await;
}
