use super::*;
use crate::random::uniform;

fn params(loss: Loss) -> Params {
    Params {
        loss,
        trees: 80,
        rate: 0.2,
        row_share: 0.8,
        feature_share: 1.0,
        leaf_share: 0.002,
        shrink_share: 0.0,
        seed: 1,
    }
}

/// Rows of two features that matter and one that does not.
fn rows(count: u64) -> Vec<[f32; 3]> {
    (0..count)
        .map(|row| [1, 2, 3].map(|feature| uniform(9, feature, row) as f32))
        .collect()
}

fn fitted(loss: Loss, target: impl Fn(&[f32; 3], u64) -> f32) -> (Gbm, Bins) {
    let rows = rows(4_000);
    let targets: Vec<f32> = rows
        .iter()
        .zip(0..)
        .map(|(row, number)| target(row, number))
        .collect();
    let bins = Bins::of(rows.iter().map(|row| row.as_slice()));
    let binned: Vec<Row> = rows.iter().map(|row| bins.row(row)).collect();
    let gbm = Gbm::fit(&binned, &targets, &vec![1.0; rows.len()], &params(loss));
    (gbm, bins)
}

#[test]
fn it_learns_what_two_features_do_together() {
    let truth = |row: &[f32; 3]| if row[0] > 0.5 { 4.0 * row[1] } else { 1.0 };
    let (gbm, bins) = fitted(Loss::Squared, |row, _| truth(row));
    let rows = rows(500);
    let binned: Vec<Row> = rows.iter().map(|row| bins.row(row)).collect();
    let errors = gbm
        .predict(&binned)
        .into_iter()
        .zip(&rows)
        .map(|(p, row)| (p - truth(row)).abs());
    let error = errors.sum::<f32>() / 500.0;
    assert!(error < 0.15, "{error}");
}

#[test]
fn the_absolute_loss_predicts_medians() {
    // One in five is a hundred times as large.
    let (gbm, bins) = fitted(Loss::Absolute, |row, number| {
        if uniform(5, 5, number) < 0.2 {
            100.0
        } else {
            row[0]
        }
    });
    let row = bins.row(&[0.5, 0.5, 0.5]);
    let median = gbm.predict(&[row])[0];
    // Of what is left, the median of row[0] = .5 with a fifth far above is still close to it.
    assert!((0.3..0.8).contains(&median), "{median}");
}

#[test]
fn missing_is_a_bin_of_its_own() {
    let (gbm, bins) = fitted(Loss::Squared, |row, _| row[0]);
    let missing = bins.row(&[f32::NAN, f32::INFINITY, 0.5]);
    assert_eq!((missing[0], missing[1]), (0, 0));
    assert!(gbm.predict(&[missing])[0].is_finite());
    assert!(bins.is_sound() && gbm.is_sound());
}

#[test]
fn nothing_to_learn_is_no_problem() {
    let gbm = Gbm::fit(&[], &[], &[], &params(Loss::Absolute));
    assert_eq!(gbm.predict(&[[0; 64]]), [0.0]);
    let same = vec![[3; 64]; 50];
    let gbm = Gbm::fit(&same, &[2.0; 50], &[1.0; 50], &params(Loss::Absolute));
    assert_eq!(gbm.predict(&same[..2]), [2.0, 2.0]);
}
