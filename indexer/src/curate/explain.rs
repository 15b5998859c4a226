//! Why an image is in or out, in sentences.

use super::ledger::{Because, LedgerRow};
use super::output::Rule;
use super::run_folder::RunInfo;

/// Sentences about one image of the pool.
pub fn explain(row: &LedgerRow, info: &RunInfo) -> Vec<String> {
    let state = if row.kept { "is in the result" } else { "is not in the result" };
    let mut sentences =
        vec![format!("{} (image {} of `{}`) {state}.", row.path, row.id, info.pool.collection)];
    sentences.push(reason(row, info));
    if let Some(component) = row.component.filter(|&first| first != row.id) {
        sentences.push(format!("It is in one component with image {component}."));
    }
    if let Some(cluster) = row.cluster {
        sentences.push(format!("It is in cluster {cluster}."));
    }
    if let (Some(excluded), Some(similarity)) = (&row.excluded, row.excluded_similarity) {
        let threshold = info
            .steps
            .iter()
            .rfind(|step| step.folder.ends_with("relative-dedup"))
            .and_then(|step| step.threshold)
            .unwrap_or(f32::NAN);
        let side = if row.leak { "not below" } else { "below" };
        sentences.push(format!(
            "The excluded image most like it is {}: similarity {similarity:.4}, {side} the \
             threshold {threshold:.4}.",
            named(excluded)
        ));
    }
    sentences.push(format!("Vectors are of model {} ({}).", info.model, info.fingerprint));
    sentences
}

fn reason(row: &LedgerRow, info: &RunInfo) -> String {
    let step = &row.step;
    let similarity = match row.similarity {
        Some(similarity) => format!("similarity {similarity:.4}"),
        None => "similarity not computed".to_owned(),
    };
    let seed = row.seed.as_ref().map(named).unwrap_or_default();
    let because = row.because.as_ref().map(named).unwrap_or_default();
    let threshold = info.steps.iter().find(|done| done.folder == *step);
    let threshold = match threshold.and_then(|done| done.threshold) {
        Some(threshold) => format!(", threshold {threshold:.4}"),
        None => String::new(),
    };
    match row.rule {
        Rule::Neighbour => format!(
            "Step {step} found it as neighbour {} of the seed image {seed}, {similarity}.",
            row.rank.unwrap_or_default()
        ),
        Rule::Drawn => format!(
            "Step {step} drew it from cluster {}, which enough seed images fall into; of these it \
             is most like {seed}, {similarity}.",
            row.cluster.map_or_else(|| "?".to_owned(), |cluster| cluster.to_string())
        ),
        Rule::IsSeed => format!("Step {step} kept it: its file is that of the seed image {seed}."),
        Rule::Survived => "No step dropped it.".to_owned(),
        Rule::Accepted => "It was accepted in review.".to_owned(),
        Rule::SameFile => format!("Step {step} dropped it: its file is the same as {because}."),
        Rule::NearDuplicate => format!(
            "Step {step} dropped it: it is a near-duplicate of {because}, which stays for all of \
             their component ({similarity}{threshold})."
        ),
        Rule::Leak => format!(
            "Step {step} dropped it: it is like the excluded image {because} \
             ({similarity}{threshold})."
        ),
        Rule::LeakByComponent => format!(
            "Step {step} dropped it: pairs at or above the threshold lead from it to an image that \
             is like the excluded image {because}{threshold}."
        ),
        Rule::NotRetrieved if because.is_empty() => {
            format!("Step {step} dropped it: it was retrieved for no seed image.")
        }
        Rule::NotRetrieved => format!(
            "Step {step} dropped it: it was retrieved for no seed image; the nearest is {because}, \
             {similarity}."
        ),
        Rule::OverCap => format!(
            "Step {step} found it for the seed image {because} ({similarity}), but had reached \
             its limit."
        ),
        Rule::SemanticDuplicate => format!(
            "Step {step} dropped it: within its cluster it is a near-duplicate of {because}, which \
             is less typical of the cluster ({similarity}{threshold})."
        ),
        Rule::Balanced => format!("Step {step} dropped it by lot: its cluster had its share."),
        Rule::Rejected => "It was rejected in review.".to_owned(),
    }
}

fn named(Because { set, id, path }: &Because) -> String {
    format!("{path} (image {id} of `{set}`)")
}
