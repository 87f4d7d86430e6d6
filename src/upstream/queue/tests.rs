use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use std::num::NonZeroU32;

use tokio::time::advance;

use super::*;
use crate::upstream::{
    Concurrency, Failure, Pace, Rate, Reception, Seed, Settings,
    testing::{lease, loads, only, seconds, seeds, settings, upstream},
};

fn capped(queue: usize) -> Settings {
    Settings {
        max_connections: 1,
        queue,
        ..settings()
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn waits<F: Future>(future: Pin<&mut F>) -> bool {
    poll(future).is_pending()
}

fn ready<F: Future>(future: Pin<&mut F>) -> F::Output {
    match poll(future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("still waiting"),
    }
}

#[tokio::test]
async fn a_freed_backend_goes_to_who_came_first() {
    let upstream = upstream(capped(10), 1);
    let tried = Tried::default();
    let busy = lease(&upstream).await;
    let (mut first, mut second) = (
        pin!(upstream.lease(Priority::Normal, None, &tried)),
        pin!(upstream.lease(Priority::Normal, None, &tried)),
    );
    assert!(waits(first.as_mut()) && waits(second.as_mut()));

    drop(busy);
    // Already the first one's: a newcomer does not get it.
    let mut newcomer = pin!(upstream.lease(Priority::Normal, None, &tried));
    assert!(waits(newcomer.as_mut()) && waits(second.as_mut()));
    let served = ready(first.as_mut()).unwrap();
    assert_eq!(loads(&upstream), [1]);

    drop(served);
    let served = ready(second.as_mut()).unwrap();
    drop(served);
    assert!(ready(newcomer.as_mut()).is_ok());
}

#[tokio::test]
async fn a_waiter_that_goes_away_costs_nothing() {
    let upstream = upstream(capped(1), 1);
    let tried = Tried::default();
    let busy = lease(&upstream).await;
    for _ in 0..5 {
        let mut waiter = Box::pin(upstream.lease(Priority::Normal, None, &tried));
        assert!(waits(waiter.as_mut()));
        assert_eq!(upstream.waiting(), 1);
        drop(waiter);
        assert_eq!(upstream.waiting(), 0);
    }
    drop(busy);
    assert_eq!(loads(&upstream), [0]);
}

#[tokio::test]
async fn a_lease_whose_waiter_has_just_gone_reaches_the_next() {
    let upstream = upstream(capped(10), 1);
    let tried = Tried::default();
    let busy = lease(&upstream).await;
    let mut gone = Box::pin(upstream.lease(Priority::Normal, None, &tried));
    let mut next = pin!(upstream.lease(Priority::Normal, None, &tried));
    assert!(waits(gone.as_mut()) && waits(next.as_mut()));
    drop(busy);
    drop(gone);
    assert!(ready(next.as_mut()).is_ok());
    assert_eq!((loads(&upstream), upstream.waiting()), (vec![0], 0));
}

#[tokio::test]
async fn the_higher_class_goes_first_and_within_one_who_came_first() {
    let upstream = upstream(capped(10), 1);
    let tried = Tried::default();
    let mut busy = lease(&upstream).await;
    let classes = [
        Priority::Low,
        Priority::Normal,
        Priority::Critical,
        Priority::High,
        Priority::Normal,
    ];
    let mut waiters: Vec<_> = classes
        .iter()
        .map(|class| Box::pin(upstream.lease(*class, None, &tried)))
        .collect();
    for waiter in &mut waiters {
        assert!(waits(waiter.as_mut()));
    }
    assert_eq!(upstream.load().waiting, [1, 1, 2, 1]);
    for next in [2, 3, 1, 4, 0] {
        drop(busy);
        busy = ready(waiters[next].as_mut()).unwrap();
    }
}

#[tokio::test]
async fn whoever_waits_behind_better_ones_has_every_tenth_place() {
    let upstream = upstream(capped(100), 1);
    let tried = Tried::default();
    let mut busy = lease(&upstream).await;
    let mut low = pin!(upstream.lease(Priority::Low, None, &tried));
    assert!(waits(low.as_mut()));
    for _ in 1..ELDEST {
        let mut high = pin!(upstream.lease(Priority::High, None, &tried));
        assert!(waits(high.as_mut()));
        drop(busy);
        busy = ready(high.as_mut()).unwrap();
    }
    let mut high = pin!(upstream.lease(Priority::High, None, &tried));
    assert!(waits(high.as_mut()));
    drop(busy);
    assert!(ready(low.as_mut()).is_ok());
}

#[tokio::test]
async fn when_the_queue_is_full_the_last_of_the_lowest_class_gives_way() {
    let upstream = upstream(capped(2), 1);
    let tried = Tried::default();
    let _busy = lease(&upstream).await;
    let mut normal = pin!(upstream.lease(Priority::Normal, None, &tried));
    let mut low = pin!(upstream.lease(Priority::Low, None, &tried));
    assert!(waits(normal.as_mut()) && waits(low.as_mut()));
    assert_eq!(
        ready(pin!(upstream.lease(Priority::Low, None, &tried))).unwrap_err(),
        Unavailable::QueueFull
    );

    let mut high = pin!(upstream.lease(Priority::High, None, &tried));
    assert!(waits(high.as_mut()));
    assert_eq!(ready(low.as_mut()).unwrap_err(), Unavailable::QueueFull);
    let mut critical = pin!(upstream.lease(Priority::Critical, None, &tried));
    assert!(waits(critical.as_mut()));
    assert_eq!(ready(normal.as_mut()).unwrap_err(), Unavailable::QueueFull);
    assert_eq!(upstream.load().shed, [0, 0, 1, 2]);
    assert_eq!(upstream.load().waiting, [1, 1, 0, 0]);
}

fn paced(millis: u64, burst: u32) -> Settings {
    Settings {
        pace: Some(Pace {
            rate: Some(Rate {
                every: Duration::from_millis(millis),
                burst: NonZeroU32::new(burst).unwrap(),
            }),
            longest_pause: seconds(3600),
        }),
        ..settings()
    }
}

/// Polite towards an upstream that is limited, and says so itself.
fn polite() -> Settings {
    let mut settings = paced(1, 1000);
    settings.queue_timeout = seconds(10);
    settings
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_pace_wait_and_go_one_by_one() {
    let upstream = upstream(paced(100, 2), 3);
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let upstream = upstream.clone();
        tasks.spawn(async move {
            let _lease = lease(&upstream).await;
            began.elapsed().as_millis()
        });
    }
    let mut times = tasks.join_all().await;
    times.sort_unstable();
    assert_eq!(times, [0, 0, 100, 200, 300, 400]);
    assert_eq!(upstream.load().paced, 4);
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_for_the_pace_in_vain_is_told_at_once_and_when_to_come_again() {
    let upstream = upstream(paced(400, 1), 1);
    let tried = Tried::default();
    let _gone = lease(&upstream).await;
    let mut second = pin!(upstream.lease(Priority::Normal, None, &tried));
    let mut third = pin!(upstream.lease(Priority::Normal, None, &tried));
    assert!(waits(second.as_mut()) && waits(third.as_mut()));
    let refused = ready(pin!(upstream.lease(Priority::Normal, None, &tried)));
    let again = Duration::from_millis(1200);
    assert_eq!(refused.unwrap_err(), Unavailable::Paced { again });
    let mut high = pin!(upstream.lease(Priority::High, None, &tried));
    assert!(waits(high.as_mut()), "it goes before the others");
}

#[tokio::test(start_paused = true)]
async fn retries_count_against_the_pace() {
    let upstream = upstream(paced(100, 1), 2);
    let began = Instant::now();
    for _ in 0..3 {
        let tried = only(&upstream, 1);
        let _ = upstream
            .lease(Priority::Normal, None, &tried)
            .await
            .unwrap();
    }
    assert_eq!(began.elapsed().as_millis(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_reload_grants_no_fresh_burst() {
    let old = upstream(paced(100, 3), 1);
    for _ in 0..3 {
        let _ = lease(&old).await;
    }
    for settings in [paced(100, 3), paced(100, 5)] {
        let new = Upstream::new(settings, seeds(&["192.0.2.1:80"]), Some(&old));
        let tried = Tried::default();
        assert!(waits(pin!(new.lease(Priority::Normal, None, &tried))));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_asks_for_a_pause_gets_one_and_then_one_request_goes_first() {
    let upstream = upstream(polite(), 2);
    let tried = Tried::default();
    let mut refused = lease(&upstream).await;
    refused.received(Reception::TooMany {
        retry_after: Some(seconds(3)),
    });
    drop(refused);
    let began = Instant::now();
    let mut first = pin!(upstream.lease(Priority::Normal, None, &tried));
    let mut second = pin!(upstream.lease(Priority::Normal, None, &tried));
    assert!(waits(first.as_mut()) && waits(second.as_mut()));
    let mut first = first.await.unwrap();
    assert!((3000..3310).contains(&began.elapsed().as_millis()));
    assert!(waits(second.as_mut()));
    first.received(Reception::Served {
        took: Duration::from_millis(5),
    });
    assert!(ready(second.as_mut()).is_ok());
    assert_eq!(upstream.load().pauses, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_longer_than_anybody_waits_is_told_at_once() {
    let upstream = upstream(polite(), 1);
    let mut refused = lease(&upstream).await;
    refused.received(Reception::TooMany {
        retry_after: Some(seconds(60)),
    });
    assert!(upstream.is_left_alone());
    let tried = Tried::default();
    let refused = ready(pin!(upstream.lease(Priority::Critical, None, &tried)));
    let Err(Unavailable::Paused { again }) = refused else {
        panic!("{refused:?}");
    };
    assert!((seconds(60)..=seconds(66)).contains(&again));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_asks_for_a_pause_is_relieved_by_the_others() {
    let upstream = upstream(polite(), 2);
    let mut away = lease(&upstream).await;
    let name = away.to_string();
    away.received(Reception::Away {
        retry_after: seconds(5),
    });
    drop(away);
    for _ in 0..10 {
        assert_ne!(lease(&upstream).await.to_string(), name);
    }
    let mut other = lease(&upstream).await;
    other.received(Reception::Away {
        retry_after: seconds(7),
    });
    drop(other);
    let began = Instant::now();
    let first = lease(&upstream).await;
    assert_eq!(first.to_string(), name, "it comes back first");
    assert!((5000..5510).contains(&began.elapsed().as_millis()));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_without_a_pace_may_say_429_to_whom_it_likes() {
    let upstream = upstream(settings(), 1);
    let mut refused = lease(&upstream).await;
    refused.received(Reception::TooMany {
        retry_after: Some(seconds(60)),
    });
    drop(refused);
    assert!(!upstream.is_left_alone());
    let tried = Tried::default();
    assert!(ready(pin!(upstream.lease(Priority::Normal, None, &tried))).is_ok());
}

fn adaptive() -> Settings {
    Settings {
        concurrency: Some(Concurrency {
            min: 3,
            max: 1000,
            tolerance: 25,
            window: Duration::from_millis(100),
            measure_every: seconds(60),
        }),
        queue: 1,
        ..settings()
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_the_limit_wait_and_more_than_may_wait_are_shed() {
    let upstream = upstream(adaptive(), 2);
    let tried = Tried::default();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(lease(&upstream).await);
    }
    assert_eq!(upstream.load().limit, Some(3));
    let mut waiter = pin!(upstream.lease(Priority::Normal, None, &tried));
    assert!(waits(waiter.as_mut()));
    let shed = ready(pin!(upstream.lease(Priority::Normal, None, &tried)));
    assert_eq!(shed.unwrap_err(), Unavailable::Overloaded);
    held.pop();
    assert!(ready(waiter.as_mut()).is_ok());
    held.push(lease(&upstream).await);
    let late = upstream.lease(Priority::Normal, None, &tried).await;
    assert_eq!(late.unwrap_err(), Unavailable::Overloaded);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_rises_lets_those_in_who_wait() {
    let upstream = upstream(adaptive(), 1);
    let tried = Tried::default();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(lease(&upstream).await);
    }
    let mut waiter = pin!(upstream.lease(Priority::Normal, None, &tried));
    assert!(waits(waiter.as_mut()));
    for _ in 0..50 {
        held[0].took(Duration::from_millis(10));
    }
    assert!(ready(waiter.as_mut()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_no_work() {
    let upstream = upstream(adaptive(), 1);
    let mut tunnels = Vec::new();
    for _ in 0..10 {
        let mut tunnel = lease(&upstream).await;
        tunnel.received(Reception::Tunnel);
        tunnels.push(tunnel);
    }
    assert_eq!((loads(&upstream), upstream.load().in_flight), (vec![10], 0));
    tunnels.clear();
    assert_eq!((loads(&upstream), upstream.load().in_flight), (vec![0], 0));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_for_the_pace_that_goes_away_costs_nothing() {
    let upstream = upstream(paced(100, 1), 1);
    let tried = Tried::default();
    let _ = lease(&upstream).await;
    let mut gone = Box::pin(upstream.lease(Priority::Normal, None, &tried));
    assert!(waits(gone.as_mut()));
    drop(gone);
    assert_eq!(upstream.waiting(), 0);
    advance(Duration::from_millis(100)).await;
    assert!(ready(pin!(upstream.lease(Priority::Normal, None, &tried))).is_ok());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let upstream = upstream(capped(1), 1);
    let tried = Tried::default();
    let _busy = lease(&upstream).await;
    let mut waiter = pin!(upstream.lease(Priority::Normal, None, &tried));
    assert!(waits(waiter.as_mut()));
    assert_eq!(
        upstream
            .lease(Priority::Normal, None, &tried)
            .await
            .unwrap_err(),
        Unavailable::QueueFull
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_beyond_the_deadline() {
    let upstream = upstream(capped(1), 1);
    let _busy = lease(&upstream).await;
    let began = tokio::time::Instant::now();
    assert_eq!(
        upstream
            .lease(Priority::Normal, None, &Tried::default())
            .await
            .unwrap_err(),
        Unavailable::QueueTimeout
    );
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(upstream.waiting(), 0);
}

#[tokio::test]
async fn a_backup_does_not_relieve_primaries_that_are_merely_busy() {
    let mut backends: Vec<Seed> = seeds(&["192.0.2.1:80", "192.0.2.2:80"]);
    backends[1].backup = true;
    let upstream = Upstream::new(capped(0), backends, None);
    let _busy = lease(&upstream).await;
    assert_eq!(
        upstream
            .lease(Priority::Normal, None, &Tried::default())
            .await
            .unwrap_err(),
        Unavailable::QueueFull
    );
}

#[tokio::test]
async fn a_lease_under_an_old_plan_frees_its_place_for_the_new_one() {
    let old = upstream(capped(1), 1);
    let busy = lease(&old).await;
    let new = Upstream::new(capped(1), seeds(&["192.0.2.1:80"]), Some(&old));
    let tried = Tried::default();
    let mut waiter = pin!(new.lease(Priority::Normal, None, &tried));
    assert!(waits(waiter.as_mut()));
    drop((busy, old));
    assert!(ready(waiter.as_mut()).is_ok());
}

#[tokio::test]
async fn waiters_are_refused_when_the_last_backend_goes_down() {
    let upstream = upstream(
        Settings {
            max_fails: 1,
            fail_timeout: Duration::from_secs(60),
            ..capped(4)
        },
        2,
    );
    let tried = Tried::default();
    let (mut one, mut two) = (lease(&upstream).await, lease(&upstream).await);
    let mut waiter = pin!(upstream.lease(Priority::Normal, None, &tried));
    assert!(waits(waiter.as_mut()));
    one.failed(Failure::Connect);
    two.failed(Failure::Connect);
    drop((one, two));
    assert_eq!(ready(waiter.as_mut()).unwrap_err(), Unavailable::AllDown);
}

#[test]
fn many_threads_lose_no_place_and_exceed_no_cap() {
    const TASKS: usize = 200;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let settings = Settings {
            max_connections: 2,
            queue: TASKS,
            queue_timeout: Duration::from_secs(30),
            ..settings()
        };
        let upstream = upstream(settings, 3);
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let upstream = upstream.clone();
            tasks.spawn(async move {
                for turn in 0..50 {
                    let tried = Tried::default();
                    let mut waiting = Box::pin(upstream.lease(Priority::Normal, None, &tried));
                    if (task + turn) % 7 == 0 {
                        // A client that leaves, wherever it is by now.
                        let _ = poll(waiting.as_mut());
                        continue;
                    }
                    let lease = waiting.await.unwrap();
                    assert!(lease.in_flight() <= 2);
                    tokio::task::yield_now().await;
                }
            });
        }
        while let Some(result) = tasks.join_next().await {
            result.unwrap();
        }
        assert_eq!((loads(&upstream), upstream.waiting()), (vec![0, 0, 0], 0));
    });
}
