//! How much a model thinks: which levels it has, and how each API and program is told one.
//!
//! The names of the levels are stock's; what becomes of them is recorded in stock's page on thinking levels. What is not
//! known of a model is not guessed: the level that is asked for is passed on, and the endpoint says what it thinks of it.

use openclaw_schema::methods::models::ThinkingLevel;

use super::settings::{Api, CliSettings, ModelRow};

/// The smallest budget that the Messages API takes, and what is left for the answer itself at least, in tokens.
const MIN_BUDGET: u64 = 1024;
/// What a model that is known to think has where nobody says more.
const COMMON: [ThinkingLevel; 5] = [
    ThinkingLevel::Off,
    ThinkingLevel::Minimal,
    ThinkingLevel::Low,
    ThinkingLevel::Medium,
    ThinkingLevel::High,
];

/// How a model is to answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// How much it is to think; what it does by itself when absent.
    pub(super) thinking: Option<ThinkingLevel>,
    /// Whether it is to answer faster; as the endpoint does by itself when absent.
    pub(super) fast: Option<bool>,
}

/// The levels of a provider's model, least first; `None` where they are not known.
pub(super) fn levels(api: Api, row: &ModelRow) -> Option<Vec<ThinkingLevel>> {
    if let Some(efforts) = &row.efforts {
        let mut levels: Vec<_> = efforts.iter().filter_map(|effort| effort.parse().ok()).collect();
        levels.push(ThinkingLevel::Off);
        levels.sort_unstable();
        levels.dedup();
        return Some(levels);
    }
    match (row.reasoning, claude_version(&row.id).filter(|_| api == Api::AnthropicMessages)) {
        (Some(false), _) => Some(vec![ThinkingLevel::Off]),
        (_, Some(version)) if version < (3, 7) => Some(vec![ThinkingLevel::Off]),
        (_, Some(version)) if version < (4, 6) => Some(COMMON.to_vec()),
        (_, Some((4, 6))) => Some(COMMON.into_iter().chain([ThinkingLevel::Adaptive]).collect()),
        (_, Some(_)) => Some(ThinkingLevel::ALL.to_vec()),
        (Some(true), None) => Some(COMMON.to_vec()),
        (None, None) => None,
    }
}

/// The levels of a program's models: all that it may be told.
pub(super) fn levels_of_cli(settings: &CliSettings) -> Vec<ThinkingLevel> {
    if settings.thinking_args.is_empty() { vec![ThinkingLevel::Off] } else { ThinkingLevel::ALL.to_vec() }
}

/// The level among `levels` that is nearest to `asked` from below; a model that thinks goes on thinking.
pub(super) fn fit(asked: ThinkingLevel, levels: &[ThinkingLevel]) -> ThinkingLevel {
    if levels.contains(&asked) {
        return asked;
    }
    let thinking = || levels.iter().copied().filter(|level| *level != ThinkingLevel::Off);
    // What the model sees fit is no amount: in its place comes a middling one.
    let bound = if asked == ThinkingLevel::Adaptive { ThinkingLevel::Medium } else { asked };
    let lower = thinking().filter(|level| *level <= bound && *level != ThinkingLevel::Adaptive).max();
    lower.or_else(|| thinking().min()).unwrap_or(ThinkingLevel::Off)
}

/// The effort that an endpoint with OpenAI's API is told; `None` for nothing.
pub(super) fn effort(row: &ModelRow, level: ThinkingLevel) -> Option<&'static str> {
    let takes_none =
        row.efforts.as_ref().is_some_and(|efforts| efforts.iter().any(|effort| effort == "none"));
    match level {
        // Most endpoints do not know the word, and a model that cannot but think has no such effort.
        ThinkingLevel::Off => takes_none.then_some("none"),
        ThinkingLevel::Adaptive => None,
        level => Some(level.name()),
    }
}

/// What the Messages API is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnthropicThinking {
    /// Not to think.
    Disabled,
    /// To think for so many tokens; `max_tokens` is the bound of thoughts and answer together.
    Budget { tokens: u64, max_tokens: u64 },
    /// To think as it sees fit, with this effort.
    Adaptive(Option<&'static str>),
}

/// What the Messages API is told of a level; `None` for nothing. `max_tokens` bounds the answer.
pub(super) fn anthropic(row: &ModelRow, level: ThinkingLevel, max_tokens: u64) -> Option<AnthropicThinking> {
    let version = claude_version(&row.id);
    if level == ThinkingLevel::Off {
        let can_think = row.reasoning == Some(true) || version.is_some_and(|version| version >= (3, 7));
        return can_think.then_some(AnthropicThinking::Disabled);
    }
    // Later models refuse a budget; what is no Claude knows nothing else.
    if version.is_some_and(|version| version >= (4, 6)) {
        return Some(AnthropicThinking::Adaptive(match level {
            ThinkingLevel::Off | ThinkingLevel::Adaptive => None,
            ThinkingLevel::Minimal => Some(ThinkingLevel::Low.name()),
            level => Some(level.name()),
        }));
    }
    let budget = match level {
        ThinkingLevel::Off | ThinkingLevel::Minimal => MIN_BUDGET,
        ThinkingLevel::Low => 2048,
        ThinkingLevel::Medium | ThinkingLevel::Adaptive => 8192,
        ThinkingLevel::High | ThinkingLevel::Xhigh => 16_384,
        ThinkingLevel::Max => 32_768,
    };
    // Thoughts count, but nobody who bounds an answer means them; more than the model can write it may not be asked for.
    let most = row.max_tokens.map_or(u64::MAX, |most| most.max(2 * MIN_BUDGET));
    let max_tokens = max_tokens.saturating_add(budget).min(most);
    let tokens = budget.min(max_tokens.saturating_sub(MIN_BUDGET)).max(MIN_BUDGET);
    Some(AnthropicThinking::Budget { tokens, max_tokens: max_tokens.max(tokens + MIN_BUDGET) })
}

/// The arguments that tell a program a level.
pub(super) fn arguments(settings: &CliSettings, level: ThinkingLevel) -> Vec<String> {
    let alias = settings.thinking_aliases.get(level.name());
    // Without a word for it, these two are what a program does when it is told nothing.
    if alias.is_none() && matches!(level, ThinkingLevel::Off | ThinkingLevel::Adaptive) {
        return Vec::new();
    }
    let word = alias.map_or(level.name(), String::as_str);
    settings.thinking_args.iter().map(|argument| argument.replace("{level}", word)).collect()
}

/// The version in the id of a Claude, such as `claude-opus-4-5-20251101` or `anthropic/claude-3.7-sonnet`.
fn claude_version(id: &str) -> Option<(u64, u64)> {
    let (_, rest) = id.split_once("claude-")?;
    let mut parts = rest.split(['-', '.', '@', ':']).map(str::parse::<u64>).skip_while(Result::is_err);
    // A date is no version.
    let is_version = |number: &u64| *number < 100;
    let major = parts.next()?.ok().filter(is_version)?;
    let minor = parts.next().and_then(Result::ok).filter(is_version).unwrap_or(0);
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use ThinkingLevel::{Adaptive, High, Low, Max, Medium, Minimal, Off, Xhigh};

    use super::*;

    fn row(id: &str) -> ModelRow {
        ModelRow { id: id.to_owned(), ..ModelRow::default() }
    }

    #[test]
    fn the_version_of_a_claude_is_in_its_id() {
        for (id, version) in [
            ("claude-opus-5", Some((5, 0))),
            ("claude-opus-4-5-20251101", Some((4, 5))),
            ("claude-opus-4-20250514", Some((4, 0))),
            ("anthropic/claude-3.7-sonnet", Some((3, 7))),
            ("claude-3-5-haiku-latest", Some((3, 5))),
            ("claude-next", None),
            ("gpt-5", None),
        ] {
            assert_eq!(claude_version(id), version, "{id}");
        }
    }

    #[test]
    fn what_is_known_of_a_model_names_its_levels() {
        let declared = |reasoning| ModelRow { reasoning: Some(reasoning), ..row("m") };
        let efforts = ["xhigh", "none", "low", "turbo"].map(str::to_owned).to_vec();
        let listed = ModelRow { efforts: Some(efforts), ..row("m") };
        assert_eq!(levels(Api::OpenAiCompletions, &row("m")), None);
        assert_eq!(levels(Api::OpenAiCompletions, &declared(false)), Some(vec![Off]));
        assert_eq!(levels(Api::OpenAiCompletions, &declared(true)), Some(COMMON.to_vec()));
        assert_eq!(levels(Api::OpenAiCompletions, &listed), Some(vec![Off, Low, Xhigh]));
        assert_eq!(levels(Api::AnthropicMessages, &row("claude-3-5-haiku")), Some(vec![Off]));
        assert_eq!(levels(Api::AnthropicMessages, &row("claude-sonnet-4-5")), Some(COMMON.to_vec()));
        assert_eq!(levels(Api::AnthropicMessages, &row("claude-opus-5")), Some(ThinkingLevel::ALL.to_vec()));
        // Somebody's proxy for it, with another API.
        assert_eq!(levels(Api::OpenAiCompletions, &row("claude-opus-5")), None);
    }

    #[test]
    fn a_level_that_a_model_lacks_becomes_the_next_lower_one() {
        for (asked, has, used) in [
            (Max, &[Off, Low, High][..], High),
            (Medium, &[Off, Low, High], Low),
            (Minimal, &[Off, Low, High], Low),
            (Adaptive, &[Off, Low, Medium, High], Medium),
            (Xhigh, &[Off, High, Adaptive], High),
            (High, &[Off], Off),
            (Off, &[Low, High], Low),
        ] {
            assert_eq!(fit(asked, has), used, "{asked:?} {has:?}");
        }
    }

    #[test]
    fn a_budget_leaves_room_for_the_answer() {
        let budget = |row: &ModelRow, level, max_tokens| match anthropic(row, level, max_tokens) {
            Some(AnthropicThinking::Budget { tokens, max_tokens }) => (tokens, max_tokens),
            other => panic!("{other:?}"),
        };
        let old = row("claude-sonnet-4-5");
        assert_eq!(budget(&old, High, 8192), (16_384, 24_576));
        assert_eq!(budget(&old, Minimal, 100), (1024, 2048));
        // The model writes no more than so much.
        assert_eq!(budget(&ModelRow { max_tokens: Some(8192), ..old.clone() }, High, 8192), (7168, 8192));
        assert_eq!(budget(&ModelRow { max_tokens: Some(500), ..old.clone() }, High, 500), (1024, 2048));
        assert_eq!(anthropic(&old, Off, 100), Some(AnthropicThinking::Disabled));
        assert_eq!(anthropic(&row("other"), Off, 100), None);
        let new = row("claude-opus-5");
        assert_eq!(anthropic(&new, Adaptive, 100), Some(AnthropicThinking::Adaptive(None)));
        assert_eq!(anthropic(&new, Minimal, 100), Some(AnthropicThinking::Adaptive(Some("low"))));
        assert_eq!(anthropic(&new, Xhigh, 100), Some(AnthropicThinking::Adaptive(Some("xhigh"))));
    }

    #[test]
    fn a_program_is_told_in_its_own_words() {
        let claude = CliSettings::claude();
        assert_eq!(arguments(&claude, Minimal), ["--effort", "low"]);
        assert_eq!(arguments(&claude, Max), ["--effort", "max"]);
        assert!(arguments(&claude, Off).is_empty() && arguments(&claude, Adaptive).is_empty());
        let args = ["-c", "effort={level}"].map(str::to_owned).to_vec();
        let other = CliSettings { thinking_args: args, ..CliSettings::new("other") };
        assert_eq!(arguments(&other, High), ["-c", "effort=high"]);
        assert_eq!(levels_of_cli(&CliSettings::new("mute")), [Off]);
    }
}
