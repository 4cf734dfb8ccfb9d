//! Faults that last a minute (`RDS_LB_FREEZE_S`; a few seconds in `make test`), and credentials.

mod credentials;

use std::time::Instant;

use integration_tests::{
    length, on_each_engine,
    process::{Signal, wait_for},
    scene::PATIENCE,
    standin::{Behaviour, Engine},
};

use crate::{
    RETIRE, clients, closed, end, nothing_closed_nothing_refused, nothing_was_down, refused_everywhere,
    retiring, set_on, watch::Watch,
};

on_each_engine!(
    a_frozen_agent_closes_nothing_and_takes_nothing_away,
    while_iam_refuses_only_the_agent_nothing_is_closed_or_refused,
    while_aws_is_away_nothing_is_closed_or_refused,
);

async fn a_frozen_agent_closes_nothing_and_takes_nothing_away(engine: Engine) {
    let mut scene = set_on(engine, RETIRE, "").await;
    let load = clients(&scene).await;
    retiring(&scene, &load, 5).await;
    let watch = Watch::begin(scene.proxy.admin_socket());
    scene.agent.signal(Signal::STOP).unwrap();
    nothing_closed_nothing_refused(&scene, &load, length::fault()).await;
    scene.agent.signal(Signal::CONT).unwrap();
    let thawed = Instant::now();
    retiring(&scene, &load, 5).await;
    println!("retiring again {:.1} s after the thaw", thawed.elapsed().as_secs_f64());
    nothing_was_down(watch).await;
    end(scene, load).await;
}

async fn while_iam_refuses_only_the_agent_nothing_is_closed_or_refused(engine: Engine) {
    let scene = set_on(engine, RETIRE, "    probe_interval: 2s\n").await;
    let load = clients(&scene).await;
    retiring(&scene, &load, 5).await;
    let watch = Watch::begin(scene.proxy.admin_socket());
    let refused = Instant::now();
    scene.standin.refuse_tokens(None, Some("lb_agent")).unwrap();
    refused_everywhere(&scene).await;
    println!("noticed after {:.1} s (probes every 2 s)", refused.elapsed().as_secs_f64());
    nothing_closed_nothing_refused(&scene, &load, length::fault()).await;
    scene.standin.accept_tokens();
    retiring(&scene, &load, 5).await;
    nothing_was_down(watch).await;
    end(scene, load).await;
}

async fn while_aws_is_away_nothing_is_closed_or_refused(engine: Engine) {
    let mut scene = set_on(engine, RETIRE, "").await;
    let load = clients(&scene).await;
    for (behaviour, restarts) in [(Behaviour::Silent, false), (Behaviour::Refusing, true)] {
        retiring(&scene, &load, 5).await;
        let watch = Watch::begin(scene.proxy.admin_socket());
        let before = closed(&load.report());
        let away = Instant::now();
        scene.standin.credentials().behave(behaviour);
        wait_for("the agent to notice", PATIENCE, async || {
            let holds = &scene.agent.state().await.unwrap()["state"]["sessions"]["holds"];
            if holds["instance_unusable"].as_u64() >= Some(1) { Ok(()) } else { Err(holds.to_string()) }
        })
        .await
        .unwrap();
        let meanwhile = closed(&load.report()) - before;
        println!("{behaviour:?}: noticed after {:.1} s, {meanwhile} closed", away.elapsed().as_secs_f64());
        nothing_closed_nothing_refused(&scene, &load, length::fault()).await;
        if restarts {
            scene.agent.kill();
            scene.agent.start().await.unwrap();
            nothing_closed_nothing_refused(&scene, &load, length::fault() / 3).await;
        }
        scene.standin.credentials().behave(Behaviour::Serving);
        retiring(&scene, &load, 5).await;
        nothing_was_down(watch).await;
    }
    end(scene, load).await;
}
