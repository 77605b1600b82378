//! The diagram of a real run.

use rmom_sim::history::Event;
use rmom_sim_lab::{
    diagram::{Picture, html},
    run::run,
    scenario::{Action, Host, Scenario, Step},
};
use serde_json::Value;

/// A shortened scenario of a seed: a broker crashes, a few messages are pushed.
fn short() -> Scenario {
    let mut scenario = Scenario::from_seed(1);
    scenario.workload.producers.truncate(1);
    scenario.workload.consumers.truncate(1);
    scenario.workload.producers[0].pushes = 20;
    scenario.steps = vec![Step { at_millis: 100, for_millis: 3_000, action: Action::Crash(Host::Broker(1)) }];
    scenario
}

#[test]
fn a_run_is_one_file_that_shows_it_all() {
    let report = run(&short());
    let page = html(&Picture {
        history: &report.history,
        scenario: Some(&report.scenario),
        verdict: Some(&report.verdict),
        violations: &report.violations,
        commit: "abc",
        replay: "rmom-sim replay 1",
    });
    assert!(page.contains(&report.verdict.to_string()) && page.contains("rmom-sim replay 1"));
    for elsewhere in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(elsewhere), "it needs nothing from elsewhere, such as {elsewhere}");
    }

    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: Value = serde_json::from_str(data).unwrap();
    let list = |name: &str| data[name].as_array().unwrap();
    assert_eq!(list("marks").len(), report.history.len());
    let lanes: Vec<_> = list("lanes").iter().map(|lane| lane["name"].as_str().unwrap()).collect();
    for host in ["operator", "producer-1", "consumer-1", "broker-1", "database", "manager-1"] {
        assert!(lanes.contains(&host), "{host} is not among {lanes:?}");
    }
    let down: Vec<_> = list("faults").iter().filter(|fault| fault["kind"] == "down").collect();
    assert_eq!(down.len(), 1, "one broker crashed");
    assert_eq!(lanes[usize::try_from(down[0]["lane"].as_u64().unwrap()).unwrap()], "broker-1");

    let acked = |record: &&rmom_sim::history::Record| matches!(record.event, Event::PushAcked { .. });
    let acknowledged = report.history.iter().filter(acked).count();
    let arrows = |kind: &str| list("arrows").iter().filter(|arrow| arrow["kind"] == kind).count();
    assert!(acknowledged > 0);
    assert_eq!(arrows("ack"), acknowledged, "each acknowledgement comes from what was stored");
    assert_eq!(arrows("unfounded"), 0);
}
