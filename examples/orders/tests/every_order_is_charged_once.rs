//! The services against a cluster in which everything fails, themselves included.

use std::{collections::BTreeMap, time::Duration};

use orders_example::{Bank, Ledger, Order, OrderBook, QUEUE, Version, bill, send_orders};
use rmom_sim::{TestError, World, explore};

const ORDERS: u64 = 100;
/// How long the test waits for what must not come: a second charge.
const AFTERMATH: Duration = Duration::from_secs(10);

fn every_order_is_charged_once(world: &mut World<'_>, version: Version) -> Result<(), TestError> {
    world.setup(|client| async move {
        client.admin().create_queue(QUEUE).await?;
        Ok(())
    })?;

    let book = OrderBook::new((1..=ORDERS).map(|number| Order { number, cents: 100 * number }).collect());
    world.service("order-service", move |client| send_orders(client, book.clone()));

    // The ledger is the billing service's database: it survives the service.
    let (ledger, bank) = (Ledger::default(), Bank::default());
    let service_bank = bank.clone();
    world.service("billing-service", move |client| bill(client, ledger.clone(), service_bank.clone(), version));

    let last_order_charged = || bank.charges().contains_key(&ORDERS);
    world.run_until(last_order_charged)?;
    world.run_for(AFTERMATH)?;

    let expected: BTreeMap<u64, u32> = (1..=ORDERS).map(|number| (number, 1)).collect();
    let charges = bank.charges();
    for number in 1..=ORDERS {
        let times = charges.get(&number).copied().unwrap_or_default();
        assert_eq!(times, 1, "order {number} was charged {times} times");
    }
    assert_eq!(charges, expected, "somebody was charged for what nobody ordered");
    Ok(())
}

/// The test that the shop keeps.
#[test]
fn the_billing_service_survives() {
    explore().seeds(30).run(|world| every_order_is_charged_once(world, Version::Second));
}

/// The test as it was when the bug was found.
#[test]
fn the_first_version_loses_a_charge() {
    let failure = explore()
        .seeds(200)
        .first_failure(|world| every_order_is_charged_once(world, Version::First))
        .expect_err("the bug is not found");
    assert!(failure.reason.contains("was charged 0 times"), "{failure}");
    let text = failure.to_string();
    assert!(text.contains("billing-service is down"), "{text}");
    assert!(text.contains(&format!("RMOM_SIM_SEED={}", failure.seed)), "{text}");
}
