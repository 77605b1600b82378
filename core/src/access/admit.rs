//! The decision.

use super::{
    action::{Action, Right},
    caller::{Caller, Principal},
};
use crate::model::{Code, Coded};

/// A caller, and the kind of operation for which the method that it used stands.
#[derive(Clone, Debug)]
pub struct Call {
    caller: Caller,
    /// `None`: any.
    right: Option<Right>,
}

impl Call {
    /// A call of a method that stands for operations of this kind.
    #[must_use]
    pub const fn new(caller: Caller, right: Right) -> Self {
        Self { caller, right: Some(right) }
    }

    /// Calls of any kind from the server's own process; see [`Caller::process`].
    #[must_use]
    pub fn of_process() -> Self {
        Self { caller: Caller::process(), right: None }
    }

    /// The caller.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The right of the method that was used. `None`: any.
    #[must_use]
    pub const fn right(&self) -> Option<Right> {
        self.right
    }
}

/// Proof that [`admit`] let a call in. A stream keeps its permit as long as it is open.
#[derive(Clone, Debug)]
pub struct Permit {
    caller: Caller,
    action: Action,
}

impl Permit {
    /// The caller.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Decides again. Streams ask at every step, so that a right that was taken away ends them.
    ///
    /// # Errors
    /// The caller may no longer do this.
    pub fn check(&self) -> Result<(), Denied> {
        decide(self.caller.principal(), &self.action)
    }
}

/// The reason why a call was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The method has no entry in the table of rights, or its entry says that it needs no right.
    #[error("a defect of rmom: the method has no right in the table of rights; report it")]
    Unlisted,
    /// The method does something else than its entry in the table of rights says.
    #[error("a defect of rmom: a method for the right {of_method} asked for {action}; report it")]
    OtherRight {
        /// The right in the table.
        of_method: Right,
        /// What the method does.
        action: Action,
    },
}

impl Coded for Denied {
    fn code(&self) -> Code {
        match self {
            Self::Unlisted | Self::OtherRight { .. } => Code::Internal,
        }
    }
}

/// Decides whether a call may do this. Every operation of a broker and of a manager begins here.
///
/// # Errors
/// [`Denied`]: the caller lacks the right, or the method's entry in the table of rights names another one.
pub fn admit(call: &Call, action: Action) -> Result<Permit, Denied> {
    match call.right {
        Some(of_method) if of_method != action.right => Err(Denied::OtherRight { of_method, action }),
        _ => {
            decide(call.caller.principal(), &action)?;
            Ok(Permit { caller: call.caller.clone(), action })
        }
    }
}

/// Lets all callers in. Users and their rights will be looked up here.
const fn decide(principal: &Principal, _: &Action) -> Result<(), Denied> {
    match principal {
        Principal::Anonymous | Principal::Process => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::QueueLabel;

    fn caller() -> Caller {
        Caller::anonymous(&"10.0.0.1:5".into(), true)
    }

    #[test]
    fn everybody_may_do_everything() {
        let label = QueueLabel::parse("q").unwrap();
        for right in Right::ALL {
            for call in [Call::new(caller(), right), Call::of_process()] {
                let permit = admit(&call, right.on_queue(&label)).unwrap();
                assert_eq!(permit.caller().peer(), call.caller().peer());
                assert_eq!(permit.check(), Ok(()));
            }
        }
    }

    #[test]
    fn a_method_does_only_what_its_entry_in_the_table_says() {
        for of_method in Right::ALL {
            for right in Right::ALL.into_iter().filter(|right| *right != of_method) {
                let denied = admit(&Call::new(caller(), of_method), right.on_cluster()).unwrap_err();
                assert_eq!(denied, Denied::OtherRight { of_method, action: right.on_cluster() });
                assert_eq!(denied.code(), Code::Internal);
            }
        }
    }

    #[test]
    fn an_address_counts_unless_all_clients_share_it() {
        assert_eq!(caller().origin().map(ToString::to_string).as_deref(), Some("10.0.0.1"));
        assert!(Caller::anonymous(&"10.0.0.1:5".into(), false).origin().is_none());
        assert!(Caller::unknown().origin().is_none() && Caller::process().origin().is_none());
    }
}
