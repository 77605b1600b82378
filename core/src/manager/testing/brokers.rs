//! Fake brokers whose answers a test sets.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::{
    model::{BrokerAddr, Code, QueueLabel},
    ports::{BrokerControl, ControlError, QueueDescription, QueueState},
};

/// How a fake broker behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Nothing listens at the address.
    #[default]
    Absent,
    /// It answers, and serves the queues that it is asked to serve.
    Well,
    /// It never answers.
    Hangs,
    /// It answers life probes, but cannot serve a queue.
    ServesNothing,
    /// It answers life probes; anything else makes the caller panic.
    Panics,
    /// It is well, but knows no calls that are newer than life probes.
    IsOld,
    /// It answers everything with this code.
    Refuses(Code),
}

/// A call that a manager made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// [`BrokerControl::heartbeat`].
    Heartbeat(BrokerAddr),
    /// [`BrokerControl::rebuild`].
    Rebuild(BrokerAddr, QueueLabel),
    /// [`BrokerControl::refresh`].
    Refresh(BrokerAddr),
    /// [`BrokerControl::describe`].
    Describe(BrokerAddr, QueueLabel),
    /// [`BrokerControl::states`].
    States(BrokerAddr, QueueLabel, QueueLabel),
    /// [`BrokerControl::complaints`].
    Complaints(BrokerAddr),
}

#[derive(Default)]
struct State {
    behaviours: BTreeMap<BrokerAddr, Behaviour>,
    failing_heartbeats: BTreeMap<BrokerAddr, u32>,
    descriptions: BTreeMap<QueueLabel, QueueDescription>,
    states: BTreeMap<QueueLabel, QueueState>,
    complaints: BTreeMap<BrokerAddr, Vec<String>>,
    calls: Vec<Call>,
}

/// Fake brokers, by address. A broker that was not [set](FakeBrokers::set) is [`Behaviour::Absent`].
#[derive(Clone, Default)]
pub struct FakeBrokers(Arc<Mutex<State>>);

impl FakeBrokers {
    /// Sets how a broker behaves from now on.
    pub fn set(&self, addr: &BrokerAddr, behaviour: Behaviour) {
        self.0.lock().behaviours.insert(addr.clone(), behaviour);
    }

    /// Makes the next `count` life probes of a broker fail, whatever its behaviour.
    pub fn fail_heartbeats(&self, addr: &BrokerAddr, count: u32) {
        self.0.lock().failing_heartbeats.insert(addr.clone(), count);
    }

    /// Sets the description of a queue that brokers give when they are well.
    pub fn describe_as(&self, label: &QueueLabel, description: QueueDescription) {
        self.0.lock().descriptions.insert(label.clone(), description);
    }

    /// Sets the state of a queue that brokers give in a list when they are well.
    pub fn state_as(&self, label: &QueueLabel, state: QueueState) {
        self.0.lock().states.insert(label.clone(), state);
    }

    /// Sets the complaints that a broker makes when it is well.
    pub fn complain(&self, addr: &BrokerAddr, complaints: Vec<String>) {
        self.0.lock().complaints.insert(addr.clone(), complaints);
    }

    /// The calls made since the last call of this method, in order.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().calls)
    }

    async fn answer(&self, addr: &BrokerAddr, call: Call) -> Result<(), ControlError> {
        let probe = matches!(call, Call::Heartbeat(_));
        let behaviour = {
            let mut state = self.0.lock();
            state.calls.push(call);
            match state.failing_heartbeats.get_mut(addr) {
                Some(left) if probe && *left > 0 => {
                    *left -= 1;
                    Behaviour::Absent
                }
                _ => state.behaviours.get(addr).copied().unwrap_or_default(),
            }
        };
        let refused = |code: Code| ControlError::Refused {
            addr: addr.clone(),
            code: Some(code),
            message: format!("told to answer {code}"),
        };
        match behaviour {
            Behaviour::Absent => {
                Err(ControlError::Unreachable { addr: addr.clone(), reason: "connection refused".to_owned() })
            }
            Behaviour::Well => Ok(()),
            Behaviour::Hangs => std::future::pending().await,
            Behaviour::ServesNothing | Behaviour::Panics | Behaviour::IsOld if probe => Ok(()),
            Behaviour::IsOld => Err(ControlError::Older { addr: addr.clone() }),
            Behaviour::Panics => panic!("the broker was told to make its caller panic"),
            Behaviour::ServesNothing => Err(refused(Code::NotHosted)),
            Behaviour::Refuses(code) => Err(refused(code)),
        }
    }
}

#[async_trait]
impl BrokerControl for FakeBrokers {
    async fn heartbeat(&self, broker: &BrokerAddr, _deadline: Duration) -> Result<(), ControlError> {
        self.answer(broker, Call::Heartbeat(broker.clone())).await
    }

    async fn rebuild(&self, broker: &BrokerAddr, label: &QueueLabel, _deadline: Duration) -> Result<(), ControlError> {
        self.answer(broker, Call::Rebuild(broker.clone(), label.clone())).await
    }

    async fn refresh(&self, broker: &BrokerAddr, _deadline: Duration) -> Result<(), ControlError> {
        self.answer(broker, Call::Refresh(broker.clone())).await
    }

    async fn describe(
        &self,
        broker: &BrokerAddr,
        label: &QueueLabel,
        _deadline: Duration,
    ) -> Result<QueueDescription, ControlError> {
        self.answer(broker, Call::Describe(broker.clone(), label.clone())).await?;
        self.0.lock().descriptions.get(label).cloned().ok_or_else(|| ControlError::Refused {
            addr: broker.clone(),
            code: Some(Code::NotHosted),
            message: "no such queue here".to_owned(),
        })
    }

    async fn states(
        &self,
        broker: &BrokerAddr,
        labels: &RangeInclusive<QueueLabel>,
        _deadline: Duration,
    ) -> Result<Vec<QueueState>, ControlError> {
        let call = Call::States(broker.clone(), labels.start().clone(), labels.end().clone());
        self.answer(broker, call).await?;
        Ok(self.0.lock().states.range(labels.clone()).map(|(_, state)| state.clone()).collect())
    }

    async fn complaints(&self, broker: &BrokerAddr, _deadline: Duration) -> Result<Vec<String>, ControlError> {
        self.answer(broker, Call::Complaints(broker.clone())).await?;
        Ok(self.0.lock().complaints.get(broker).cloned().unwrap_or_default())
    }
}
