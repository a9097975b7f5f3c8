//! From usage to money. Each component is quantity × price in 128 bits, divided once and rounded down; their sum has the
//! owner's minimum as its floor and the hold as its ceiling.

use modchain_types::{Micro, Reason, Reservation, Span, Tariff, Text, Usage};

const HOUR_MICROS: u128 = 3_600_000_000;
const GIB: u128 = 1 << 30;
const MILLION: u128 = 1_000_000;

/// Longest run of any attempt: 30 days. What costs nothing must end too.
pub const RUN_LIMIT_MAX: Span = Span::from_secs(30 * 24 * 3600);

/// The price of one GPU of this model per hour; models that are not named cost what `*` says, else nothing.
pub(crate) fn gpu_hour(tariff: &Tariff, model: &Text<64>) -> Micro {
    let any = || Text::new("*").ok().and_then(|star| tariff.gpu_hour.get(&star));
    tariff.gpu_hour.get(model).or_else(any).copied().unwrap_or_default()
}

/// What each reserved part costs per hour, as a numerator and the divisor that turns it into micro-units.
fn parts_per_hour(tariff: &Tariff, reservation: &Reservation) -> [(u128, u128); 3] {
    let gpus: u128 = reservation.gpus.iter().map(|(_, model)| u128::from(gpu_hour(tariff, model).0)).sum();
    [
        (u128::from(reservation.cpu_milli) * u128::from(tariff.core_hour.0), 1_000),
        (u128::from(reservation.memory_bytes) * u128::from(tariff.gib_hour.0), GIB),
        (gpus, 1),
    ]
}

fn saturated(amount: u128) -> Micro {
    Micro(u64::try_from(amount).unwrap_or(u64::MAX))
}

/// What a reservation costs per hour.
pub fn price_per_hour(tariff: &Tariff, reservation: &Reservation) -> Micro {
    saturated(parts_per_hour(tariff, reservation).iter().map(|(numerator, divisor)| numerator / divisor).sum())
}

/// What an attempt costs that ran: never less than the tariff's minimum, never more than the hold.
pub fn charge(tariff: &Tariff, reservation: &Reservation, usage: &Usage, hold: Micro) -> Micro {
    let ran = u128::from(usage.ran.0);
    let time = parts_per_hour(tariff, reservation)
        .iter()
        // Saturating: a price and a span from outside may be absurd, and the hold bounds the sum anyway.
        .map(|(numerator, divisor)| numerator.saturating_mul(ran) / (divisor * HOUR_MICROS))
        .fold(0u128, u128::saturating_add);
    let tokens =
        [(usage.prompt_tokens, tariff.million_prompt_tokens), (usage.output_tokens, tariff.million_output_tokens)]
            .iter()
            .map(|(count, price)| u128::from(*count) * u128::from(price.0) / MILLION)
            .sum::<u128>();
    saturated(time.saturating_add(tokens)).max(tariff.minimum).min(hold)
}

/// How long a reservation may run: the smaller of the time limit and what the hold pays for, and which of the two it is.
pub fn run_limit(tariff: &Tariff, reservation: &Reservation, hold: Micro, time_limit: Option<Span>) -> (Span, Reason) {
    let time_limit = time_limit.unwrap_or(RUN_LIMIT_MAX).min(RUN_LIMIT_MAX);
    // Over one common divisor, so that the sum of the floored parts never exceeds the hold within this time.
    let per_hour: u128 = parts_per_hour(tariff, reservation)
        .iter()
        .map(|(numerator, divisor)| numerator.saturating_mul(1_000 * GIB / divisor))
        .fold(0u128, u128::saturating_add);
    let affordable = u128::from(hold.0)
        .saturating_mul(1_000 * GIB)
        .checked_mul(HOUR_MICROS)
        .map(|budget| budget.checked_div(per_hour).unwrap_or(u128::MAX))
        // Only an absurd hold overflows here; dividing first is then exact enough.
        .unwrap_or_else(|| {
            (u128::from(hold.0) * 1_000 * GIB).checked_div(per_hour).unwrap_or(u128::MAX).saturating_mul(HOUR_MICROS)
        });
    let affordable = Span(u64::try_from(affordable).unwrap_or(u64::MAX));
    if affordable < time_limit { (affordable, Reason::Budget) } else { (time_limit, Reason::TimeLimit) }
}

/// Most output tokens that the hold pays for; `None` where they cost nothing.
pub fn output_tokens_max(tariff: &Tariff, hold: Micro) -> Option<u64> {
    let tokens = (u128::from(hold.0) * MILLION).checked_div(u128::from(tariff.million_output_tokens.0))?;
    Some(u64::try_from(tokens).unwrap_or(u64::MAX))
}

/// Tokens that a server may put around a request: markers of roles, and a model's own system prompt.
const TEMPLATE_TOKENS_MAX: u64 = 2_048;

/// What of the reported usage is believed: no more time than was seen from here, no more tokens than the texts that went
/// through here can have, request and answer: both are of no bytes where no model was asked. A token takes at least a byte
/// of text, the markers of a template aside.
pub fn believed(reported: &Usage, seen: Span, request_bytes: u64, answer_bytes: u64) -> Usage {
    let most = |text: u64| if text == 0 { 0 } else { text.saturating_add(TEMPLATE_TOKENS_MAX) };
    Usage {
        ran: reported.ran.min(seen),
        prompt_tokens: reported.prompt_tokens.min(most(request_bytes)),
        output_tokens: reported.output_tokens.min(answer_bytes),
        ..*reported
    }
}

/// The platform's part of a cost, rounded down.
pub fn fee(gross: Micro, basis_points: u16) -> Micro {
    #[cfg(feature = "planted")]
    if crate::planted::is(crate::planted::Bug::FeeRoundedUp) {
        return saturated((u128::from(gross.0) * u128::from(basis_points)).div_ceil(10_000));
    }
    saturated(u128::from(gross.0) * u128::from(basis_points) / 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tariff(core: u64, gib: u64, minimum: u64) -> Tariff {
        Tariff { core_hour: Micro(core), gib_hour: Micro(gib), minimum: Micro(minimum), ..Tariff::default() }
    }

    fn reservation(cpu_milli: u32, memory_bytes: u64) -> Reservation {
        Reservation { cpu_milli, memory_bytes, ..Reservation::default() }
    }

    fn ran(span: Span) -> Usage {
        Usage { ran: span, ..Usage::default() }
    }

    #[test]
    fn an_hour_of_two_cores_and_half_a_gib_costs_what_the_tariff_says() {
        let (tariff, reservation) = (tariff(30_000, 4_000, 1_000), reservation(2_000, 1 << 29));
        assert_eq!(price_per_hour(&tariff, &reservation), Micro(62_000));
        let cost = |span| charge(&tariff, &reservation, &ran(span), Micro(1_000_000));
        assert_eq!(cost(Span::from_secs(3_600)), Micro(62_000));
        assert_eq!(cost(Span::from_secs(1)), Micro(1_000), "the minimum");
        assert_eq!(cost(Span::from_secs(360_000)), Micro(1_000_000), "the hold");
    }

    #[test]
    fn tokens_are_priced_per_million_and_rounded_down_once() {
        let tariff = Tariff { million_output_tokens: Micro(600_000), ..Tariff::default() };
        let usage = Usage { output_tokens: 1_234, ..Usage::default() };
        assert_eq!(charge(&tariff, &Reservation::default(), &usage, Micro::UNIT), Micro(740));
    }

    #[test]
    fn fees_are_floored() {
        assert_eq!((fee(Micro(1_000), 500), fee(Micro(19), 500), fee(Micro(20), 500)), (Micro(50), Micro(0), Micro(1)));
    }

    #[test]
    fn what_costs_nothing_still_ends() {
        assert_eq!(
            run_limit(&Tariff::default(), &reservation(1_000, 1), Micro(1), None),
            (RUN_LIMIT_MAX, Reason::TimeLimit)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn charges_stay_between_zero_and_the_hold_on_the_full_range(
            core: u64, gib: u64, minimum: u64, cpu: u32, memory: u64, span: u64, tokens: u64, price: u64, hold: u64,
        ) {
            let tariff = Tariff { million_prompt_tokens: Micro(price), ..tariff(core, gib, minimum) };
            let usage = Usage { ran: Span(span), prompt_tokens: tokens, ..Usage::default() };
            let cost = charge(&tariff, &reservation(cpu, memory), &usage, Micro(hold));
            prop_assert!(cost.0 <= hold);
            prop_assert!(cost.0 >= minimum.min(hold));
            prop_assert!(fee(cost, 500).0 as u128 * 20 <= cost.0 as u128);
        }

        #[test]
        fn within_its_run_limit_a_job_costs_at_most_its_hold(
            core in 0u64..10_000_000_000, gib in 0u64..1_000_000_000, cpu in 1u32..1_000_000,
            memory in 1u64..(1 << 44), hold in 1u64..1_000_000_000_000_000,
        ) {
            let (tariff, reservation) = (tariff(core, gib, 0), reservation(cpu, memory));
            let (limit, reason) = run_limit(&tariff, &reservation, Micro(hold), None);
            let unbounded = charge(&tariff, &reservation, &ran(limit), Micro(u64::MAX));
            prop_assert!(unbounded.0 <= hold, "{} over {}", unbounded, Micro(hold));
            if reason == Reason::Budget {
                let later = Span(limit.0.saturating_add(limit.0 / 100 + 3_600_000_000));
                prop_assert!(charge(&tariff, &reservation, &ran(later), Micro(u64::MAX)).0 + 3 >= hold);
            }
        }
    }
}
