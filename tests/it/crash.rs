//! `kill -9`: what was answered 200 has its effect, once by the sandbox's count, whatever was cut
//! off.

use crate::support::{
    dev::{Dev, Directory, SandboxProcess, port_base, requests},
    hooks, until,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// SMS that the sandbox took, counted by the call id that their text carries.
async fn sms_by_body(sandbox: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests(sandbox, "twilio").await {
        if request["method"] == "POST"
            && request["status"] == 201
            && request["path"]
                .as_str()
                .is_some_and(|path| path.ends_with("/Messages.json"))
        {
            *counts
                .entry(request["form"]["Body"].as_str().unwrap_or_default().to_owned())
                .or_insert(0) += 1;
        }
    }
    counts
}

/// A rule whose SMS names its call, so that a double is not taken for a sibling.
async fn text_the_call_id(dev: &Dev) {
    let rules = dev.admin("/api/rules").await;
    let rule = rules["data"]
        .as_array()
        .and_then(|all| all.iter().find(|rule| rule["action"] == "twilio.send_sms").cloned())
        .expect("the demo's rule");
    let mut spec: Value = rule.clone();
    spec["parameters"]["body"] = "call {{ message.call.id }}".into();
    for ours in ["id", "version", "created_at", "updated_at"] {
        spec.as_object_mut().expect("an object").remove(ours);
    }
    let id = rule["id"].as_str().expect("an id");
    let read = crate::support::client()
        .get(format!("{}/api/rules/{id}", dev.get("admin")))
        .bearer_auth(dev.get("admin_token"))
        .send()
        .await;
    let etag = read.expect("the admin API answers").headers()["etag"].clone();
    let answer = crate::support::client()
        .put(format!("{}/api/rules/{id}", dev.get("admin")))
        .bearer_auth(dev.get("admin_token"))
        .header("if-match", etag)
        .json(&spec)
        .send()
        .await
        .expect("the admin API answers");
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap_or_default());
}

#[tokio::test]
async fn what_was_accepted_before_kill_nine_is_sent_once() {
    let directory = Directory::new();
    let base = port_base();
    let sandbox = SandboxProcess::start(port_base()).await;
    let mut dev = Dev::start(directory.path(), base, &["--sandbox-url", &sandbox.url]).await;
    text_the_call_id(&dev).await;
    let mut accepted = BTreeSet::new();
    for round in 0..4_u64 {
        let posts = (0..40).map(|_| async {
            let call = hooks::call_id();
            (
                hooks::post(&dev, hooks::end_of_call(&call, &dev.get("assistant_id"))).await,
                call,
            )
        });
        for (status, call) in futures_util::future::join_all(posts).await {
            assert_eq!(status, 200);
            accepted.insert(format!("call {call}"));
        }
        // Between the 200s and the last SMS: at another moment in each round.
        let seen = usize::try_from(round * 40 + round * 9).expect("small");
        until("some SMS of this round", || async {
            Some(sms_by_body(&sandbox.url).await.len()).filter(|count| *count >= seen)
        })
        .await;
        dev.process.kill();
        dev = Dev::start(directory.path(), base, &["--sandbox-url", &sandbox.url]).await;
    }
    let sent = until("every accepted call to have its SMS", || async {
        let sent = sms_by_body(&sandbox.url).await;
        Some(sent.clone()).filter(|_| accepted.iter().all(|body| sent.contains_key(body)))
    })
    .await;
    let doubled: Vec<_> = sent.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "sent twice: {doubled:?}");
}
