//! What a script is made of.

use std::fmt;

use arbitrary::{Arbitrary, Result, Unstructured};

macro_rules! vocabulary {
    ($($item:item)*) => { $(#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)] $item)* };
}

vocabulary! {
    /// A key. Few, so that they meet.
    pub(crate) enum Name {
        A,
        B,
        C,
    }

    /// Borrow the mutex, or own a share in it.
    pub(crate) enum By {
        Ref,
        Arc,
    }

    /// Each future has two wakers, so that it can be polled with another one than before.
    pub(crate) enum Spare {
        One,
        Two,
    }

    /// How many may share a key.
    pub(crate) enum Max {
        One,
        Two,
        NoLimit,
    }

    /// Which one, of those that the operation can be done to: counted round and round.
    pub(crate) struct Pick(pub(crate) u8);

    /// What a task does in the end.
    pub(crate) enum End {
        Ok,
        Err,
        Panic,
    }

    /// Returns pending this often, then ends.
    pub(crate) struct Task {
        pub(crate) or_stop: bool,
        pub(crate) long: bool,
        pub(crate) end: End,
    }

    /// What an admission closure says.
    pub(crate) enum Admit {
        Never,
        IfFree,
        IfShared,
        IfFewerThanTwoWait,
        Panic,
    }

    /// Exclusively, or together with others.
    pub(crate) enum Mode {
        Exclusive,
        Shared(Max),
    }

    pub(crate) enum Start {
        Lock(Name, By, Mode),
        TryLock(Name, By, Mode),
        /// Waits in the thread. Only done if it need not wait: there is one thread.
        Wait(Name, By, Mode),
        /// The same, with no time to wait.
        WaitTimeout(Name, By, Mode),
        Unless(Name, By, Mode),
        LockMany([Option<(Name, Mode)>; 3], By),
        Run(Name, By, Mode, Task),
        Ticket(Name, By, Mode),
        /// Of one key, or of all.
        Idle(Option<Name>),
        TicketIf(Name, By, Mode, Admit),
    }

    pub(crate) enum Op {
        /// Calls a method, and keeps what it returns. Futures are not polled yet.
        Start(Start),
        /// Polls a future or a ticket.
        Poll(Pick, Spare),
        /// Drops a future, a ticket or a guard, whatever its state.
        Drop(Pick),
        /// Calls `stop` of a guard.
        StopGuard(Pick),
        /// Calls `downgrade` of a guard.
        Downgrade(Pick),
        /// Calls `stop` of the mutex.
        StopKey(Name),
        /// Gives a ticket a signal.
        TicketUnless(Pick),
        /// Makes the signal of an `unless` ready.
        Signal(Pick),
        /// Makes a ticket run a task.
        RunTicket(Pick, Task),
        /// Makes a guard run a task, which stops the queue unless it is `Ok`.
        RunGuard(Pick, Task),
        /// Calls `stop_all`.
        StopAll,
        /// Makes room for so many.
        Reserve(u8),
    }
}

impl Mode {
    /// How many may share a key; 0: it is exclusive.
    pub(crate) fn limit(self) -> usize {
        match self {
            Self::Exclusive => 0,
            Self::Shared(Max::One) => 1,
            Self::Shared(Max::Two) => 2,
            Self::Shared(Max::NoLimit) => usize::MAX,
        }
    }
}

impl Name {
    pub(crate) const ALL: [Self; 3] = [Self::A, Self::B, Self::C];
}

/// How a key stands: how many hold it, whether they share it, how many wait.
pub(crate) type Standing = (usize, bool, usize);

impl Admit {
    /// Whether it admits; `None`: it panics.
    pub(crate) fn decide(self, (holders, shared, waiting): Standing) -> Option<bool> {
        match self {
            Self::Never => Some(false),
            Self::IfFree => Some(holders == 0),
            Self::IfShared => Some(shared),
            Self::IfFewerThanTwoWait => Some(waiting < 2),
            Self::Panic => None,
        }
    }
}

/// Prints one operation on a line.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) ops: Vec<Op>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops.iter().try_for_each(|op| write!(f, "\n    {op:?}"))
    }
}

/// As many operations as there are bytes for: an operation takes three or four.
impl Arbitrary<'_> for Script {
    fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
        let mut ops = Vec::new();
        while !bytes.is_empty() {
            ops.push(bytes.arbitrary()?);
        }
        Ok(Self { ops })
    }
}

/// Any of the values, as often as it is listed.
macro_rules! any_of {
    ($($type:ty: $($value:expr),+;)*) => {
        $(impl Arbitrary<'_> for $type {
            fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
                bytes.choose(&[$($value),+]).copied()
            }
        })*
    };
}

any_of! {
    Name: Self::A, Self::A, Self::A, Self::B, Self::C;
    By: Self::Ref, Self::Arc;
    Spare: Self::One, Self::Two;
    Max: Self::One, Self::Two, Self::NoLimit;
    End: Self::Ok, Self::Err, Self::Panic;
    Admit: Self::Never, Self::IfFree, Self::IfShared, Self::IfFewerThanTwoWait, Self::Panic;
}

impl Arbitrary<'_> for Pick {
    fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
        bytes.arbitrary().map(Self)
    }
}

impl Arbitrary<'_> for Task {
    fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self { or_stop: bytes.arbitrary()?, long: bytes.arbitrary()?, end: bytes.arbitrary()? })
    }
}

impl Arbitrary<'_> for Mode {
    fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Ok(if bytes.ratio(1, 3)? { Self::Exclusive } else { Self::Shared(bytes.arbitrary()?) })
    }
}

/// What has more numbers is begun more often.
impl Arbitrary<'_> for Start {
    fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match bytes.int_in_range(0..=16)? {
            0..=3 => Self::Lock(bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?),
            4 => Self::TryLock(bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?),
            5 => Self::Wait(bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?),
            6 => Self::WaitTimeout(bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?),
            7 => Self::Unless(bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?),
            8 => Self::LockMany(bytes.arbitrary()?, bytes.arbitrary()?),
            9..=11 => Self::Run(bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?),
            12..=14 => Self::Ticket(bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?),
            15 => Self::Idle(bytes.arbitrary()?),
            _ => Self::TicketIf(bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?),
        })
    }
}

/// What has more numbers is done more often. (Most mistakes show in a queue only: when starts were as rare as stops, one script
/// in ten thousand found a seeded fault that one in thirty finds now.)
impl Arbitrary<'_> for Op {
    fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match bytes.int_in_range(0..=41)? {
            0..=9 => Self::Start(bytes.arbitrary()?),
            10..=25 => Self::Poll(bytes.arbitrary()?, bytes.arbitrary()?),
            26..=31 => Self::Drop(bytes.arbitrary()?),
            32 => Self::StopGuard(bytes.arbitrary()?),
            33..=34 => Self::Downgrade(bytes.arbitrary()?),
            35 => Self::StopKey(bytes.arbitrary()?),
            36 => Self::Signal(bytes.arbitrary()?),
            37 => Self::RunTicket(bytes.arbitrary()?, bytes.arbitrary()?),
            38 => Self::RunGuard(bytes.arbitrary()?, bytes.arbitrary()?),
            39 => Self::StopAll,
            40 => Self::TicketUnless(bytes.arbitrary()?),
            _ => Self::Reserve(bytes.arbitrary()?),
        })
    }
}
