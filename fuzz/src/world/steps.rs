//! Steps encoded as bytes.

/// Declares the steps of a target: an enum whose fields are small numbers, each below its bound. A step is encoded as its
/// place in the list followed by its fields, a byte each, so that a fuzzer's small change of the input is a small change of
/// the run, and every input is valid.
macro_rules! steps {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$step_doc:meta])* $step:ident $({ $($field:ident < $bound:expr),* })?,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$step_doc])* $step $({ $($field: u8),* })?,)*
        }

        impl $name {
            const KINDS: u8 = [$(stringify!($step)),*].len() as u8;

            /// Decodes a step from the next bytes.
            pub(crate) fn decode(bytes: &mut arbitrary::Unstructured<'_>) -> arbitrary::Result<Self> {
                let kind = bytes.arbitrary::<u8>()? % Self::KINDS;
                let mut at = 0;
                $(
                    if kind == at {
                        return Ok(Self::$step $({ $($field: bytes.arbitrary::<u8>()? % $bound),* })?);
                    }
                    at += 1;
                )*
                unreachable!("{at} kinds, and this is {kind}")
            }

            /// Encodes this step.
            pub(crate) fn encode(self, bytes: &mut Vec<u8>) {
                let mut kind = 0;
                $(
                    #[allow(irrefutable_let_patterns)]
                    if let Self::$step $({ $($field),* })? = self {
                        bytes.push(kind);
                        $($(bytes.push($field);)*)?
                        return;
                    }
                    kind += 1;
                )*
                unreachable!("{kind} kinds, and this is none of them: {self:?}")
            }
        }
    };
}

/// Declares the input of a target: a seed for its brokers' random draws, and up to `$most` steps.
macro_rules! case {
    ($(#[$doc:meta])* $name:ident, $step:ident, $most:expr) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            pub(crate) seed: u8,
            pub(crate) steps: Vec<$step>,
        }

        /// Prints one step per line.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "seed {}", self.seed)?;
                self.steps.iter().try_for_each(|step| write!(f, "\n{step:?}"))
            }
        }

        impl<'a> arbitrary::Arbitrary<'a> for $name {
            fn arbitrary(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
                let seed = bytes.arbitrary()?;
                let mut steps = Vec::new();
                while !bytes.is_empty() && steps.len() < $most {
                    steps.push($step::decode(bytes)?);
                }
                Ok(Self { seed, steps })
            }
        }

        impl $name {
            /// The input that encodes these steps.
            pub(crate) fn encode(steps: &[$step]) -> Vec<u8> {
                let mut bytes = vec![0];
                for step in steps {
                    step.encode(&mut bytes);
                }
                bytes
            }
        }
    };
}
