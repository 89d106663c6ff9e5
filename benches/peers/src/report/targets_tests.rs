use super::*;

fn row(workload: &str, system: &str, config: &str, durability: Durability, median: f64) -> Row {
    let unit = match workload {
        w if w.contains("latency") || w.contains("burst") || w.starts_with("cpu") => "ns",
        w if w.starts_with("partitions") => "ms",
        w if w.starts_with("bytes") => "bytes/record",
        _ => "records/s",
    };
    Row::new(workload.into(), system.into(), config.into(), durability, unit.into(), vec![median])
}

fn claim(work: &str, must: &str) -> &'static Claim {
    let mut begun = "";
    let found = CLAIMS.iter().find(|claim| {
        begun = if claim.work.is_empty() { begun } else { claim.work };
        begun.starts_with(work) && claim.must.starts_with(must)
    });
    found.expect("there is such a claim")
}

use Durability::{Memory, None as Nothing, Process};

#[test]
fn the_fastest_peer_of_the_same_promise_counts() {
    let mut rows = vec![
        row("append_one", "tapelog", "default", Process, 10.0),
        row("append_one", "tapelog", "appender", Process, 22.0),
        row("append_one", "tapelog", "in memory", Memory, 90.0),
        row("append_one", "tickertape", "default", Process, 8.0),
        row("append_one", "tickertape", "best", Process, 20.0),
        row("append_one", "seglog", "buffered", Nothing, 80.0),
        row("append_one", "floor", "64 KiB pwrite, pread", Process, 32.0),
    ];
    let fastest = judge(claim("append one by one", ">= 1.1 x"), &rows);
    assert_eq!((fastest.quotient, fastest.met), (Some(1.1), Some(true)));
    assert_eq!(fastest.ours.map(|row| row.config.as_str()), Some("appender"));
    let as_it_comes = judge(claim("append one by one", ">= 2.5 x"), &rows);
    assert_eq!((as_it_comes.quotient, as_it_comes.met), (Some(2.75), Some(true)));
    let floor = judge(claim("append one by one", ">= 0.7 x"), &rows);
    assert_eq!((floor.quotient, floor.met), (Some(0.6875), Some(false)));
    rows.remove(1);
    let fastest = judge(claim("append one by one", ">= 1.1 x"), &rows);
    assert_eq!((fastest.quotient, fastest.met), (Some(0.5), Some(false)));
}

#[test]
fn less_is_better_for_times() {
    let rows = [
        row("append_latency_1m_sync50ms_p99.9", "tapelog", "default", Process, 400.0),
        row("append_latency_1m_sync50ms_p99.9", "tapelog", "appender", Process, 100.0),
        row("append_latency_1m_sync50ms_p99.9", "khata", "default", Process, 1000.0),
        row("append_latency_1m_sync50ms_p99.9", "tickertape", "default", Process, 5000.0),
    ];
    let verdict = judge(claim("append latency at 1,000,000/s", "p99.9 "), &rows);
    assert_eq!((verdict.quotient, verdict.met), (Some(0.1), Some(true)));
    assert_eq!(verdict.beside.map(|row| row.system.as_str()), Some("khata"));
}

#[test]
fn who_verifies_is_told_apart() {
    let rows = [
        row("replay", "tapelog", "default", Nothing, 28.0),
        row("replay", "tickertape", "default", Nothing, 20.0),
        row("replay", "khata", "default", Nothing, 35.0),
        row("replay", "floor", "64 KiB pwrite, pread", Nothing, 90.0),
    ];
    assert_eq!(judge(claim("replay", ">= 1.4 x"), &rows).met, Some(true));
    assert_eq!(judge(claim("replay", ">= 1.1 x"), &rows).met, Some(false));
}

#[test]
fn numbers_stand_for_themselves() {
    let rows = [
        row("partitions_10k_open", "tapelog", "default", Process, 3001.0),
        row("partitions_10k_idle", "tapelog", "default", Nothing, 0.0),
    ];
    assert_eq!(judge(claim("10,000 partitions", "open"), &rows).met, Some(false));
    assert_eq!(judge(claim("10,000 partitions", "no CPU"), &rows).met, Some(true));
}

#[test]
fn what_was_not_measured_is_neither_reached_nor_missed() {
    let rows = [row("tail_latency_100k_p50", "tapelog", "default", Process, 100.0)];
    for claim in CLAIMS {
        let verdict = judge(claim, &rows);
        assert_eq!((verdict.quotient, verdict.met), (None, None), "{}", claim.must);
    }
}

/// A claim about a workload or a configuration that nobody measures would be "not measured" for ever.
#[test]
fn claims_name_what_there_is() {
    let workloads = crate::args::workload_names();
    let systems = crate::args::system_names();
    let configs = |system: &str| -> Vec<&str> {
        crate::systems::find(system).map_or(Vec::new(), |s| s.configs.iter().map(|c| c.name).collect())
    };
    let known = |workload: &str| assert!(workloads.iter().any(|w| w == workload), "{workload}");
    for claim in CLAIMS {
        match &claim.ours {
            Best(workload) => known(workload),
            As(workload, names) => {
                known(workload);
                names.iter().for_each(|name| assert!(configs("tapelog").contains(name), "{name}"));
            }
        }
        match &claim.beside {
            Peer(workload) | BestAsItComes(workload) | Called(workload, _) => known(workload),
            AsItComes(workload, system) => {
                known(workload);
                assert!(systems.contains(system), "{system}");
            }
            Of(workload, names) => {
                known(workload);
                // Aeron is there only where it was asked for; else the table says that it was not measured.
                names
                    .iter()
                    .filter(|name| cfg!(feature = "aeron") || **name != "aeron")
                    .for_each(|name| assert!(systems.contains(name)));
            }
            Floor(workload, config) => {
                known(workload);
                assert!(configs("floor").contains(config), "{config}");
            }
            Own(workload, config) => {
                known(workload);
                assert!(configs("tapelog").contains(config), "{config}");
            }
            Number(number) => assert!(*number > 0.0),
        }
    }
}
