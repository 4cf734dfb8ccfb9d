//! Agents of one instance see one another by locks in the database, which end with their session.

use agent_core::peers::{Look, Marks, Wish};
use agent_database::Session;
use integration_tests::{process::wait_for, standin::Engine};
use tokio::sync::Mutex;

use crate::lab::{Lab, PATIENCE};

const ENGINES: [Engine; 2] = [Engine::Postgresql, Engine::Mariadb];

async fn lab(engine: Engine) -> Lab<Engine> {
    Lab::on(engine, integration_tests::standin::Options { replicas: 1, ..Default::default() }).await
}

async fn meet(session: &mut Box<dyn Session>, marks: Marks, permits: u32) -> Look {
    session.meet(&Wish { marks, permits, of: 4, first: 2 }).await.unwrap()
}

const NONE: Marks = Marks { writer: false, word: false, drain: false, waits: false };
const ALL: Marks = Marks { writer: true, word: true, drain: true, waits: true };

#[tokio::test]
async fn agents_see_one_anothers_marks_on_a_writer_and_on_a_replica() {
    for engine in ENGINES {
        let lab = lab(engine).await;
        for server in ["a", "b"] {
            let mut one = lab.session(server, "lb_agent").await;
            let mut two = lab.session(server, "lb_agent_plain").await;
            assert_eq!(meet(&mut one, NONE, 0).await, Look::default(), "{engine:?}");
            // An agent of another database user is a stranger.
            let look = meet(&mut two, ALL, 1).await;
            assert_eq!((look.own, look.permits, look.peers), (ALL, 1, 0), "{engine:?}");
            let look = meet(&mut one, NONE, 0).await;
            assert_eq!((look.peers, look.drains, look.writers), (0, 0, 0), "{engine:?}");
            assert!(look.foreign >= 5, "{engine:?}: {look:?}");
            drop(two);

            let mut two = lab.session(server, "lb_agent").await;
            meet(&mut two, ALL, 0).await;
            let look = meet(&mut one, Marks { drain: true, ..NONE }, 0).await;
            let counts = (look.peers, look.writers, look.words, look.drains, look.waiting);
            assert_eq!(counts, (1, 1, 1, 1, 1), "{engine:?}");
            assert_eq!(look.own, Marks { drain: true, ..NONE }, "{engine:?}");
            assert_eq!(meet(&mut two, NONE, 0).await.own, NONE, "{engine:?}");
            assert_eq!(meet(&mut one, NONE, 0).await, Look { peers: 1, ..Look::default() }, "{engine:?}");
        }
        lab.shutdown().await;
    }
}

#[tokio::test]
async fn a_permit_is_held_by_one_agent_until_it_is_released_or_its_session_ends() {
    for engine in ENGINES {
        let lab = lab(engine).await;
        let mut one = lab.session("a", "lb_agent").await;
        let two = Mutex::new(lab.session("a", "lb_agent").await);
        assert_eq!(meet(&mut one, NONE, 3).await.permits, 3, "{engine:?}");
        assert_eq!(meet(&mut *two.lock().await, NONE, 3).await.permits, 1, "{engine:?}: there are four");
        assert_eq!(meet(&mut one, NONE, 1).await.permits, 1, "{engine:?}");
        assert_eq!(meet(&mut *two.lock().await, NONE, 4).await.permits, 3, "{engine:?}");
        assert_eq!(meet(&mut one, NONE, 4).await.permits, 1, "{engine:?}");
        // As when the process is killed.
        drop(one);
        wait_for("the locks of the ended session to be free", PATIENCE, || async {
            let look = meet(&mut *two.lock().await, NONE, 4).await;
            if look == (Look { permits: 4, ..Look::default() }) { Ok(()) } else { Err(format!("{look:?}")) }
        })
        .await
        .unwrap();
        lab.shutdown().await;
    }
}

#[tokio::test]
async fn forty_agents_count_one_another() {
    for engine in ENGINES {
        let lab = lab(engine).await;
        let mut agents = Vec::new();
        for _ in 0..40 {
            let mut agent = lab.session("a", "lb_agent").await;
            meet(&mut agent, Marks { writer: true, ..NONE }, 0).await;
            agents.push(agent);
        }
        let mut look = Look::default();
        for _ in 0..2 {
            look = meet(&mut agents[0], NONE, 0).await;
        }
        assert_eq!((look.peers, look.writers), (39, 39), "{engine:?}");
        drop(agents);
        lab.shutdown().await;
    }
}
