//! A pause on a running `dev`: webhooks are taken, nothing is sent, and a resume sends it.

use crate::support::{
    dev::{Dev, Directory, port_base, run},
    until,
};
use serde_json::json;

fn hookswitch(directory: &Directory, arguments: &[&str]) -> String {
    let mut all = arguments.to_vec();
    all.extend_from_slice(&["--data-dir", directory.path().to_str().expect("UTF-8")]);
    let output = run(&all, &[]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

async fn paused(dev: &Dev, scope: &str) -> f64 {
    dev.metric(&format!("hookswitch_paused{{scope=\"{scope}\"}}")).await
}

async fn rule_that_texts(dev: &Dev) -> String {
    let rules = dev.admin("/api/rules").await;
    let all = rules["data"].as_array().expect("rules");
    let one = all
        .iter()
        .find(|rule| rule["action"] == "twilio.send_sms")
        .expect("a rule");
    one["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_pause_holds_what_is_to_be_sent_and_takes_what_comes() {
    let directory = Directory::new();
    let dev = Dev::start(directory.path(), port_base(), &[]).await;
    let rule = rule_that_texts(&dev).await;
    let org = dev.get("org_id");
    let mut sent = 0;
    for target in [
        vec!["--all"],
        vec!["--org", &org],
        vec!["--provider", "twilio"],
        vec!["--rule", &rule],
    ] {
        let with = |first: &[&str]| {
            let mut all = first.to_vec();
            all.extend_from_slice(&target);
            hookswitch(&directory, &all)
        };
        let scope = target[0].trim_start_matches('-');
        assert!(with(&["pause", "--reason", "Twilio moves us"]).contains("no attempt begins"));
        assert!(hookswitch(&directory, &["pause"]).contains("Twilio moves us"));
        assert!((paused(&dev, scope).await - 1.0).abs() < f64::EPSILON, "{scope}");
        let shown = dev.admin("/api/pauses").await;
        assert_eq!(
            (&shown["pauses"][0]["reason"], &shown["pauses"][0]["actor"]),
            (&json!("Twilio moves us"), &json!(null))
        );

        hookswitch(&directory, &["send", "vapi/end-of-call-report"]);
        // The event is taken and planned; its text waits, in its own way.
        let wanted = if scope == "rule" { "parked" } else { "pending" };
        until(&format!("a held action: {scope}"), || async {
            let list = dev.admin(&format!("/api/actions?provider=twilio&state={wanted}")).await;
            (list["data"].as_array().expect("a list").len() == 1).then_some(())
        })
        .await;
        assert_eq!(dev.sms().await.len(), sent, "{scope}");

        assert!(with(&["resume"]).contains("resumed"));
        sent += 1;
        dev.wait_for_sms(sent).await;
        assert!(hookswitch(&directory, &["pause"]).contains("nothing is paused"));
    }
    assert_eq!(dev.sms().await.len(), 4);
    let audit = dev.admin("/api/audit").await;
    let verbs: Vec<_> = audit["data"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|one| one["verb"].clone())
        .collect();
    for verb in ["pause", "resume"] {
        assert_eq!(
            verbs.iter().filter(|one| **one == verb).count(),
            2,
            "of its own and its rule: {verbs:?}"
        );
    }
}
