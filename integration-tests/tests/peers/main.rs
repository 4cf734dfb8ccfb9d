//! Several HAProxies, each with an agent of its own, in front of one database.
//!
//! The proxies connect to the database from loopback addresses of their own, as from different hosts.
//!
//! - `budget`: five agents share one login budget.
//! - `drains`: two agents never drain the last two servers together.
//! - `writer`: agents that disagree about the writer, and the operator's word.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "../support/watch.rs"]
mod watch;

mod budget;
mod drains;
mod writer;

use std::sync::Arc;

use integration_tests::{
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Options, StandIn},
};

/// One stand-in, and so many proxies with agents.
async fn hosts(agents: u8, standin: Options, setting: Setting) -> (Arc<StandIn>, Vec<Scene>) {
    let standin = Arc::new(StandIn::start(standin).await.unwrap());
    let mut scenes = Vec::new();
    for host in 0..agents {
        let setting = Setting { server_words: format!("source 127.0.0.{}", 11 + host), ..setting.clone() };
        scenes.push(Scene::around(standin.clone(), setting).await.unwrap());
    }
    agents_seen(&scenes, "a", agents.into()).await;
    (standin, scenes)
}

/// Waits until each agent sees so many on an instance, itself included.
async fn agents_seen(scenes: &[Scene], instance: &str, agents: u64) {
    for scene in scenes {
        wait_for("all agents to be seen", PATIENCE, async || {
            let state = scene.agent.state().await.unwrap();
            let look = &state["state"]["peers"][format!("orders/{instance}")]["look"];
            if look["peers"].as_u64() == Some(agents - 1) { Ok(()) } else { Err(look.to_string()) }
        })
        .await
        .unwrap();
    }
}

async fn clear(standin: Arc<StandIn>, scenes: Vec<Scene>) {
    for scene in scenes {
        scene.clear().await.unwrap();
    }
    Arc::into_inner(standin).unwrap().shutdown().await.unwrap();
}
