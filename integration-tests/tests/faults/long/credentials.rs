//! Credentials that rotate, and credentials that expire while the endpoint fails.

use std::{collections::BTreeSet, fs, sync::Mutex, time::Duration};

use integration_tests::{
    length,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Behaviour, Options, credential::Credential},
};
use jiff::Timestamp;

use crate::{
    RETIRE, clients, end, nothing_closed_nothing_refused, nothing_was_down, of, retiring, watch::Watch,
};

const NO_TOKEN: &str = "no token, so the agent cannot log in; the database is not at fault";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_credentials_rotate_and_no_login_fails() {
    let life = length::seconds("RDS_LB_CREDENTIAL_S", 20, 60);
    // At a quarter of their life as usual. Of so short ones that is less than the margin in
    // which a token is not handed out any more, and two retries.
    let renew_before = (life < Duration::from_mins(1)).then_some(life / 2);
    let standin = Options { credential_life: life, renew_before, ..Options::default() };
    let database = "    probe_interval: 1s\n".into();
    let scene = Scene::set(Setting { standin, sessions: RETIRE.into(), database, ..Setting::default() });
    let scene = scene.await.unwrap();
    let load = clients(&scene).await;
    let keys = Mutex::new(BTreeSet::new());
    wait_for("five rotations", life * 10, async || {
        let key = scene.standin.credentials().issuer().current(Timestamp::now()).access_key;
        let mut keys = keys.lock().unwrap();
        keys.insert(key);
        if keys.len() > 5 { Ok(()) } else { Err(format!("{} keys", keys.len())) }
    })
    .await
    .unwrap();
    let keys = keys.into_inner().unwrap();
    let attempts = scene.standin.journal().attempts();
    let refused: Vec<_> = attempts.iter().filter(|attempt| attempt.verdict.is_err()).collect();
    let own = attempts.iter().filter(|attempt| attempt.user == "lb_agent").count();
    println!("{} keys of {life:?}: {} logins, {own} of them the agent's", keys.len(), attempts.len());
    assert!(refused.is_empty(), "{refused:?}");
    assert!(own > 10);
    assert!(of(&scene, NO_TOKEN).is_empty(), "{:?}", of(&scene, NO_TOKEN));
    assert_eq!(load.report().failed_logins, 0, "{:?}", load.report().causes);
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_expire_are_logged_once_and_take_nothing_away() {
    let life = Duration::from_secs(30);
    let standin = Options { credential_life: life, ..Options::default() };
    let database = "    probe_interval: 1s\n".into();
    let setting = Setting { standin, sessions: RETIRE.into(), database, ..Setting::default() };
    let scene = Scene::set(setting).await.unwrap();
    let load = clients(&scene).await;
    retiring(&scene, &load, 5).await;

    let watch = Watch::begin(scene.proxy.admin_socket());
    let issuer = scene.standin.credentials().issuer();
    let last = issuer.current(Timestamp::now());
    scene.standin.credentials().behave(Behaviour::Failing);
    // Nothing that was given before is good any more: what it would sign now would be refused.
    let end_of_life = Timestamp::now() + life;
    wait_for("each instance to be without a token", life + PATIENCE, async || {
        let logged = of(&scene, NO_TOKEN).len();
        let over = Timestamp::now() > end_of_life;
        if logged >= 3 && over { Ok(()) } else { Err(format!("{logged} logged, the end has come: {over}")) }
    })
    .await
    .unwrap();
    let without = Timestamp::now();
    nothing_closed_nothing_refused(&scene, &load, Duration::from_secs(15)).await;
    let logged = of(&scene, NO_TOKEN);
    let instances: BTreeSet<&str> = logged.iter().filter_map(|event| event["instance"].as_str()).collect();
    assert_eq!((logged.len(), instances.len()), (3, 3), "once for each instance: {logged:?}");
    assert!(logged.iter().all(|event| event["level"] == "ERROR"), "{logged:?}");
    let own = |since: Timestamp| {
        let attempts = scene.standin.journal().attempts_since(since);
        attempts.into_iter().filter(|attempt| attempt.user == "lb_agent").collect::<Vec<_>>()
    };
    assert!(own(without).is_empty(), "logins without a token: {:?}", own(without));
    let refused: Vec<_> = own(Timestamp::MIN).into_iter().filter(|login| login.verdict.is_err()).collect();
    assert!(refused.is_empty(), "{refused:?}");

    scene.standin.credentials().behave(Behaviour::Serving);
    retiring(&scene, &load, 5).await;
    nothing_was_down(watch).await;
    let now = issuer.current(Timestamp::now());
    assert_ne!(now, last);
    nowhere_to_be_read(&scene, &[last, now]).await;
    end(scene, load).await;
}

/// Neither a token nor what signs it is in anything that the agent says or keeps.
async fn nowhere_to_be_read(scene: &Scene, credentials: &[Credential]) {
    let (_, state) = scene.agent.get("/debug/state").await.unwrap();
    let (_, metrics) = scene.agent.get("/metrics").await.unwrap();
    let mut all = vec![("log", scene.agent.log()), ("/debug/state", state), ("/metrics", metrics)];
    for file in fs::read_dir(scene.agent.state_dir()).unwrap() {
        let text = fs::read(file.unwrap().path()).unwrap();
        all.push(("state file", String::from_utf8_lossy(&text).into_owned()));
    }
    for place in ["log", "/debug/state", "/metrics", "state file"] {
        assert!(
            all.iter().any(|(of, text)| *of == place && !text.is_empty()),
            "nothing to look at in {place}"
        );
    }
    // Whole, or the beginning of it that no encoding changes.
    let plain = |secret: &str| secret.split(['+', '/', '=']).next().unwrap_or(secret).to_owned();
    for (place, text) in &all {
        assert!(!text.contains("X-Amz-Signature"), "a token in {place}");
        for Credential { secret_key, session_token, .. } in credentials {
            for secret in [secret_key.clone(), session_token.clone(), plain(session_token)] {
                assert!(!text.contains(&secret), "a secret in {place}");
            }
        }
    }
}
