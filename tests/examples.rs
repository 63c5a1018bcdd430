//! The examples do what they say they do.
#![cfg(not(any(async_mutex_lite_loom, miri)))]
#![allow(clippy::std_instead_of_core)] // tests have the standard library

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use async_mutex_lite::{KeyedMutex, Stopped};

#[path = "../examples/cache.rs"]
mod cache;
#[allow(dead_code)] // `main`
#[path = "../examples/checkout.rs"]
mod checkout;
#[allow(dead_code)] // `main`
#[path = "../examples/limit.rs"]
mod limit;
#[path = "../examples/ordered.rs"]
mod ordered;
#[path = "../examples/stop.rs"]
mod stop;
#[path = "../examples/webhooks.rs"]
mod webhooks;

/// Runs the checkout on an input: its status, its picture, its complaints.
fn checkout(input: impl AsRef<[u8]>) -> (ExitCode, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = checkout::checkout(input.as_ref(), false, &mut out, &mut err);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn the_checkout_loses_nothing_with_the_mutex() {
    let sample = include_str!("../examples/checkout.txt");
    let (status, out, err) = checkout(sample);
    assert_eq!(status, ExitCode::SUCCESS);
    assert_eq!(err, "");
    let (_, with) = out.split_once("WITH the mutex").expect("two parts");
    assert!(with.contains("shipped 792.28, paid 792.28, lost 0.00   (orders of one user at once: 1)"), "{out}");
}

#[test]
fn the_checkout_loses_money_without_the_mutex() {
    let (orders, _) = checkout::parse(b"alice 1\nbob 7.50\nalice 2\nalice 4");
    // On one thread all read before any of them writes: the last one of each user wins.
    let day = checkout::serve(&orders, None, Duration::ZERO, 1);
    assert_eq!((day.shipped, day.lost), (1450, 300));
    let kept = checkout::serve(&orders, Some(&KeyedMutex::new()), Duration::ZERO, 1);
    assert_eq!((kept.shipped, kept.lost), (1450, 0));
    assert_eq!(checkout::conclude(&orders, &day, &kept, true, &mut io::sink()), ExitCode::SUCCESS);
    assert_eq!(checkout::conclude(&orders, &kept, &day, true, &mut io::sink()), ExitCode::FAILURE);
}

#[test]
fn a_bad_line_gets_its_number_and_the_reason_and_the_rest_runs() {
    let input = b"\xef\xbb\xbfalice 5\r\n\r\n  # nothing\r\nbob\r\nbob -3\nbob 1.234\nbob 0.00\nbob 1 2\n\xff 3\n\
        bob 184467440737095516.15\nbob 184467440737095516.16\nbob .5 # half\nbob 184467440737095517\ne\x1b[2Jve 5\nalice 1.5 # one and a half";
    let (status, out, err) = checkout(input);
    assert_eq!(status, ExitCode::SUCCESS);
    assert!(out.contains("3 orders by 2 users"), "{out}");
    assert!(out.contains("shipped 184467440737095522.65, paid 184467440737095522.65, lost 0.00"), "{out}");
    let complaints = [
        "line 4: a user, but no amount",
        "line 5: \"-3\" is not an amount: write 12 or 12.50",
        "line 6: \"1.234\" is not an amount: it has more than two decimals",
        "line 7: \"0.00\" is not an amount: it must be more than zero",
        "line 8: \"2\" after the amount",
        "line 9: not UTF-8",
        "line 11: \"184467440737095516.16\" is too much: 184467440737095516.15 is the limit",
        "line 12: \".5\" is not an amount: write 12 or 12.50",
        "line 13: \"184467440737095517\" is too much: 184467440737095516.15 is the limit",
        "line 14: \"e\\u{1b}[2Jve\" is not a name: it has control characters",
    ];
    assert_eq!(err.lines().collect::<Vec<_>>(), complaints);
}

#[test]
fn no_orders_are_no_failure() {
    for input in ["", "\n\r\n", "# closed today"] {
        assert_eq!(checkout(input), (ExitCode::SUCCESS, "no orders\n".into(), String::new()));
    }
}

#[test]
fn ten_thousand_orders_make_no_longer_picture() {
    for users in [1, 100, 10_000] {
        let input: String = (0..10_000).map(|number| format!("user{} 0.01\n", number % users)).collect();
        let (status, out, _) = checkout(input);
        assert_eq!(status, ExitCode::SUCCESS);
        assert!(out.contains("paid 100.00, lost 0.00"), "{out}");
        assert!(out.lines().count() < 50, "{out}");
        assert!(out.lines().all(|line| line.chars().count() < 120), "{out}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure_but_a_full_disk_is() {
    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let status = |kind| checkout::checkout(b"alice 1", true, &mut Fails(kind), &mut Fails(kind));
    assert_eq!(status(ErrorKind::BrokenPipe), ExitCode::SUCCESS);
    assert_eq!(status(ErrorKind::StorageFull), ExitCode::from(2));
}

#[test]
fn a_webhook_is_processed_once() {
    assert_eq!(webhooks::processed(true), 5);
    assert_eq!(webhooks::main(), ExitCode::SUCCESS);
}

#[test]
fn a_stampede_loads_each_key_once() {
    assert_eq!((cache::loads(false), cache::loads(true)), (100, 5));
    assert_eq!(cache::main(), ExitCode::SUCCESS);
}

#[test]
fn a_failing_step_stops_those_behind_it_and_a_retry_runs() {
    let [first, other, retry] = stop::outcomes().map(|steps| steps.into_iter().map(|step| step.1).collect::<Vec<_>>());
    assert_eq!(first, [Ok(Ok(())), Ok(Err("card declined")), Err(Stopped)]);
    assert_eq!(other, [Ok(Ok(())); 3]);
    assert_eq!(retry, [Ok(Ok(())); 3]);
    assert_eq!(stop::main(), ExitCode::SUCCESS);
}

#[test]
fn tickets_keep_the_order_of_arrival() {
    // On one thread, the yields alone turn every pair round.
    assert_eq!(ordered::inversions(false, 1), 8 * 50 * 49 / 2);
    assert_eq!(ordered::inversions(true, 1), 0);
    assert_eq!(ordered::inversions(true, 4), 0);
    assert_eq!(ordered::main(), ExitCode::SUCCESS);
}

#[test]
fn no_more_requests_reach_a_host_at_once_than_it_answers() {
    assert!(limit::send_all(true).unwrap().iter().all(|request| request.served));
}
