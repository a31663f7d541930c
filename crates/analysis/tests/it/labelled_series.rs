//! The detector on the series of the Numenta Anomaly Benchmark, asked the way an engineer asks: does the last hour differ
//! from the day before? Counts labelled anomalies met by an alarm and alarms where nothing is labelled. This is not the
//! NAB score, which rewards early streaming alarms.

use std::collections::HashMap;

use portcullis_analysis::{DetectOptions, MetricClass, Verdict, detect};
use portcullis_model::{Sample, Timestamp, parse_instant};

type Labels = HashMap<String, Vec<(String, String)>>;

fn instant(text: &str) -> Timestamp {
    let seconds = text.split('.').next().unwrap_or(text);
    parse_instant(&(seconds.replace(' ', "T") + "Z"), Timestamp::from_seconds(0)).unwrap()
}

#[test]
fn labelled_anomalies_are_met_and_quiet_hours_stay_quiet() {
    const HOUR: usize = 12;
    const DAY: usize = 288;
    let Some(folder) = crate::accuracy::data("nab") else { return };
    let labels: Labels = serde_json::from_str(&std::fs::read_to_string(folder.join("combined_windows.json")).unwrap()).unwrap();
    let (mut met, mut labelled, mut alarms, mut quiet) = (0usize, 0usize, 0usize, 0usize);
    let (mut marked_alarms, mut marked, mut insufficient) = (0usize, 0usize, 0usize);
    let mut names: Vec<&String> = labels.keys().filter(|name| folder.join(name).is_file()).collect();
    names.sort();
    assert!(names.len() > 20);
    let options = DetectOptions::for_class(MetricClass::Other);
    for name in names {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let rows = text.lines().skip(1).filter_map(|line| line.split_once(','));
        let samples: Vec<Sample> = rows.map(|(at, value)| Sample { at: instant(at), value: value.parse().unwrap() }).collect();
        let windows: Vec<(Timestamp, Timestamp)> = labels[name].iter().map(|(from, to)| (instant(from), instant(to))).collect();
        let mut hit = vec![false; windows.len()];
        let (mut false_here, mut quiet_here) = (0usize, 0usize);
        for start in (DAY..samples.len().saturating_sub(HOUR)).step_by(HOUR) {
            let current = &samples[start..start + HOUR];
            let verdict = detect(current, &samples[start - DAY..start], &options);
            insufficient += usize::from(matches!(verdict, Verdict::InsufficientData { .. }));
            let touches = |(from, to): &(Timestamp, Timestamp)| current[0].at <= *to && *from <= current[HOUR - 1].at;
            let alarm = verdict.anomaly().is_some();
            if windows.iter().any(touches) {
                marked += 1;
                marked_alarms += usize::from(alarm);
                for (index, window) in windows.iter().enumerate().filter(|(_, window)| touches(window)) {
                    hit[index] |= alarm && window.0 <= window.1;
                }
            } else {
                quiet_here += 1;
                false_here += usize::from(alarm);
            }
        }
        let reachable = windows.iter().filter(|(_, to)| samples.get(DAY).is_some_and(|s| s.at <= *to)).count();
        println!(
            "{name}: {} of {reachable} anomalies met, {false_here} alarms in {quiet_here} quiet hours",
            hit.iter().filter(|h| **h).count()
        );
        met += hit.iter().filter(|h| **h).count();
        labelled += reachable;
        alarms += false_here;
        quiet += quiet_here;
    }
    let (recall, noise, marked_share) =
        (met as f64 / labelled as f64, alarms as f64 / quiet as f64, marked_alarms as f64 / marked as f64);
    println!("{met} of {labelled} labelled anomalies met ({:.0} %)", recall * 100.0);
    println!(
        "alarms in {:.1} % of {quiet} quiet hours, in {:.1} % of {marked} hours under a label",
        noise * 100.0,
        marked_share * 100.0
    );
    assert_eq!(insufficient, 0);
    assert!(recall >= 0.45 && noise <= 0.025 && marked_share > 2.0 * noise, "{recall:.2}, {noise:.3}, {marked_share:.3}");
}
