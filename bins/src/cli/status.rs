//! `rmom status`: a cluster in ten lines.

use rmom_client::{Broker, Status};
use serde_json::{Value, json};

use super::{
    admin::{Printer, broker_json},
    error::CliError,
    output::{count, plural},
    session::Session,
};

pub(super) async fn show(session: &Session, printer: &mut Printer) -> Result<(), CliError> {
    let status = session.client.admin().status().await.map_err(|error| session.explain(&error))?;
    printer.print(|| document(&status), |out| lines(&status).into_iter().try_for_each(|line| out.line(line)))?;
    match status.problems.len() as u64 {
        0 => Ok(()),
        count => Err(CliError::unavailable(format_args!("not all is well: {}", plural(count, "problem")))),
    }
}

fn document(status: &Status) -> Value {
    let problem = |problem: &rmom_client::Problem| json!({ "what": problem.what, "next": problem.next });
    json!({
        "healthy": status.healthy, "manager_id": status.manager_id, "leading": status.leading,
        "leader_id": status.leader_id, "term": status.term,
        "brokers": status.brokers.iter().map(broker_json).collect::<Vec<_>>(),
        "failovers": status.counters.failovers, "handovers": status.counters.handovers,
        "rebalanced": status.counters.rebalanced,
        "problems": status.problems.iter().map(problem).collect::<Vec<_>>(),
        "notes": status.notes,
    })
}

/// A test for a kind of broker.
type Is = fn(&Broker) -> bool;

fn lines(status: &Status) -> Vec<String> {
    let leads = match (status.leading, status.leader_id) {
        (true, _) => format!("leads, in term {}", status.term),
        (false, Some(leader)) => format!("follows {leader}, in term {}", status.term),
        (false, None) => "knows of no leader".to_owned(),
    };
    let brokers = &status.brokers;
    let number = |is: Is| brokers.iter().filter(|broker| is(broker)).count() as u64;
    let mut kinds = vec![format!("{} alive", count(number(|broker| broker.live)))];
    let others: [(&str, Is); 4] = [
        ("of them draining", |broker| broker.live && broker.state == "draining"),
        ("dead", |broker| !broker.live && !broker.gone && broker.state != "stopped"),
        ("stopped", |broker| !broker.live && !broker.gone && broker.state == "stopped"),
        ("gone", |broker| broker.gone),
    ];
    for (name, is) in others {
        if number(is) > 0 {
            kinds.push(format!("{} {name}", count(number(is))));
        }
    }
    let queues = |is: Is| -> u64 { brokers.iter().filter(|broker| is(broker)).map(|broker| broker.queues).sum() };
    let away = queues(|broker| !broker.live);
    let served = match away {
        0 => format!("{} on live brokers", count(queues(|_| true))),
        away => format!("{} on live brokers, {} on others", count(queues(|broker| broker.live)), count(away)),
    };
    let counters = &status.counters;
    let moved = format!(
        "{} by failovers, {} by handovers, {} to balance the brokers, since this manager started",
        count(counters.failovers),
        count(counters.handovers),
        count(counters.rebalanced)
    );
    let mut lines = vec![
        format!("cluster    {}", if status.healthy { "all is well" } else { "not all is well" }),
        format!("manager    {} {leads}", status.manager_id),
        format!("brokers    {}", kinds.join(", ")),
        format!("queues     {served}"),
        format!("moved      {moved}"),
    ];
    for problem in &status.problems {
        lines.push(format!("problem    {}", problem.what));
        lines.push(format!("           {}", problem.next));
    }
    lines.extend(status.notes.iter().map(|note| format!("note       {note}")));
    lines
}

#[cfg(test)]
mod tests {
    use rmom_client::{Counters, Problem, Uuid};

    use super::*;

    fn broker(id: u64, state: &str, live: bool, queues: u64) -> Broker {
        let (host, state) = (format!("b{id}"), state.to_owned());
        Broker { id: Some(id), host, port: 1, state, live, queues, gone: false }
    }

    #[test]
    fn a_cluster_takes_a_few_lines() {
        let mut status = Status {
            manager_id: Uuid::nil(),
            leading: true,
            leader_id: Some(Uuid::nil()),
            term: 3,
            brokers: vec![broker(1, "up", true, 1_200), broker(2, "draining", true, 5)],
            counters: Counters { failovers: 7, handovers: 0, rebalanced: 2 },
            healthy: true,
            problems: Vec::new(),
            notes: Vec::new(),
        };
        let well = [
            "cluster    all is well",
            "manager    00000000-0000-0000-0000-000000000000 leads, in term 3",
            "brokers    2 alive, 1 of them draining",
            "queues     1,205 on live brokers",
            "moved      7 by failovers, 0 by handovers, 2 to balance the brokers, since this manager started",
        ];
        assert_eq!(lines(&status), well);
        status.brokers.push(broker(3, "up", false, 4));
        status.brokers.push(Broker { gone: true, ..broker(4, "up", false, 0) });
        (status.leading, status.healthy) = (false, false);
        status.problems.push(Problem { what: "broker 3 is not alive".into(), next: "start it".into() });
        status.notes.push("broker 2 is older".into());
        let ill = lines(&status);
        assert_eq!(ill[2], "brokers    2 alive, 1 of them draining, 1 dead, 1 gone");
        assert_eq!(ill[3], "queues     1,205 on live brokers, 4 on others");
        let said = ["problem    broker 3 is not alive", "           start it", "note       broker 2 is older"];
        assert_eq!(ill[5..], said);
        assert!(ill[1].ends_with("follows 00000000-0000-0000-0000-000000000000, in term 3"));
    }
}
