//! Faults of links and hosts, and that they add up.

use std::{cell::RefCell, rc::Rc, time::Duration};

use rmom_core::ports::{BoxIo, Transport};
use rmom_sim::{Cluster, SimNet, isolated};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

const PORT: u16 = 7;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn connect() -> std::io::Result<BoxIo> {
    Transport::connect(&SimNet, &format!("echo:{PORT}")).await
}

/// The milliseconds that each answer took; `None` if no answer came.
type Echoes = Rc<RefCell<Vec<Option<u128>>>>;

/// A host that sends everything back, and one that sends a byte over a new connection every 500 ms.
fn echoes(seed: u64) -> (Cluster, Echoes) {
    let mut cluster = Cluster::builder(seed).brokers(0).limit(Duration::from_secs(60)).build();
    cluster.service("echo", |_| async {
        let mut listener = SimNet.bind(&format!("0.0.0.0:{PORT}")).await?;
        loop {
            let (mut io, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut byte = [0];
                while io.read_exact(&mut byte).await.is_ok() && io.write_all(&byte).await.is_ok() {}
            });
        }
    });
    let echoes = Echoes::default();
    let answers = echoes.clone();
    cluster.service("caller", move |_| {
        let answers = answers.clone();
        async move {
            loop {
                let start = tokio::time::Instant::now();
                let call = async {
                    let mut io = connect().await.ok()?;
                    io.write_all(&[7]).await.ok()?;
                    io.read_exact(&mut [0]).await.ok()
                };
                let answer = timeout(millis(400), call).await.ok().flatten();
                answers.borrow_mut().push(answer.map(|_| start.elapsed().as_millis()));
                sleep(millis(500).saturating_sub(start.elapsed())).await;
            }
        }
    });
    (cluster, echoes)
}

/// The number of answered calls in the next two seconds after a pause.
fn answered(cluster: &mut Cluster, echoes: &Echoes) -> usize {
    // Calls in flight do not count.
    cluster.run_for(millis(1_000)).unwrap();
    echoes.borrow_mut().clear();
    cluster.run_for(millis(2_000)).unwrap();
    echoes.borrow().iter().flatten().count()
}

#[test]
fn cuts_and_holds_add_up() {
    isolated(|| {
        let (mut cluster, echoes) = echoes(1);
        let (a, b) = ("echo", "caller");
        assert_eq!(answered(&mut cluster, &echoes), 4);
        cluster.cut(a, b);
        cluster.cut_oneway(b, a);
        assert_eq!(answered(&mut cluster, &echoes), 0);
        cluster.hold(a, b);
        cluster.repair(a, b);
        assert_eq!(answered(&mut cluster, &echoes), 0, "still cut, in one direction");
        cluster.repair_oneway(b, a);
        assert_eq!(answered(&mut cluster, &echoes), 0, "still held");
        cluster.freeze(a);
        cluster.release(a, b);
        assert_eq!(answered(&mut cluster, &echoes), 0, "frozen");
        cluster.freeze(b);
        cluster.thaw(a);
        assert_eq!(answered(&mut cluster, &echoes), 0, "the other is frozen");
        cluster.thaw(b);
        assert_eq!(answered(&mut cluster, &echoes), 4);
        cluster.cut_oneway(a, b);
        assert_eq!(answered(&mut cluster, &echoes), 0);
        cluster.repair(a, b);
        assert_eq!(answered(&mut cluster, &echoes), 4);
    });
}

#[test]
fn what_is_held_arrives() {
    isolated(|| {
        let (mut cluster, echoes) = echoes(2);
        cluster.run_for(millis(1_001)).unwrap();
        cluster.hold("caller", "echo");
        cluster.run_for(millis(200)).unwrap();
        echoes.borrow_mut().clear();
        cluster.release("caller", "echo");
        cluster.run_for(millis(200)).unwrap();
        assert!(matches!(echoes.borrow()[..], [Some(took)] if took > 200), "{echoes:?}");
    });
}

#[test]
fn a_slow_link_is_slow_until_it_is_not() {
    isolated(|| {
        let (mut cluster, echoes) = echoes(3);
        cluster.slow("echo", "caller", millis(100));
        assert_eq!(answered(&mut cluster, &echoes), 4);
        // Three delays: the connection, the byte, and the byte back. The acceptance of a connection is not delayed.
        assert!(echoes.borrow().iter().flatten().all(|&took| took >= 300), "{echoes:?}");
        cluster.unslow("echo", "caller");
        assert_eq!(answered(&mut cluster, &echoes), 4);
        assert!(echoes.borrow().iter().flatten().all(|&took| took < 30), "{echoes:?}");
    });
}

#[test]
fn hosts_crash_and_lose_their_power() {
    isolated(|| {
        let (mut cluster, echoes) = echoes(4);
        for (loses_power, what) in [(false, "crash"), (true, "power loss")] {
            if loses_power {
                cluster.power_loss("echo");
            } else {
                cluster.crash("echo");
            }
            assert!(!cluster.is_running("echo"));
            assert_eq!(answered(&mut cluster, &echoes), 0, "{what}");
            cluster.restart("echo");
            assert_eq!(answered(&mut cluster, &echoes), 4, "{what}");
        }
        // A freeze also applies to links of a host that is added later.
        cluster.freeze("echo");
        cluster.host("late", async {
            assert!(timeout(millis(400), connect()).await.is_err(), "it reached a frozen host");
            Ok(())
        });
        cluster.run().unwrap();
    });
}

#[test]
fn wall_clocks_jump_one_by_one() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    isolated(move || {
        let mut cluster = Cluster::builder(5).brokers(0).build();
        let readings = Rc::new(RefCell::new(Vec::new()));
        for host in ["ahead", "right", "behind"] {
            let readings = readings.clone();
            cluster.host(host, async move {
                sleep(millis(1_000)).await;
                readings.borrow_mut().push((host, now() + 3_600 - rmom_sim::EPOCH_MILLIS / 1_000));
                Ok(())
            });
        }
        cluster.run_for(millis(500)).unwrap();
        cluster.set_clock("ahead", 60_000);
        cluster.set_clock("behind", -60_000);
        cluster.run().unwrap();
        readings.borrow_mut().sort_unstable();
        assert_eq!(*readings.borrow(), [("ahead", 3_661), ("behind", 3_541), ("right", 3_601)]);
    });
}
