//! The bank: accounts whose sum never changes.

use anyhow::{Result, bail};
use bytes::Bytes;
use x0_kv::{Expect, OperationError, RangeQuery, Store, Transaction, Versioned};

use crate::history::Answer;

/// How many accounts there are.
pub(crate) const ACCOUNTS: u64 = 8;
/// The balance of each account at first.
pub(crate) const BALANCE: u64 = 1000;

fn key(account: u64) -> String {
    format!("bank/{account:02}")
}

fn value(balance: u64) -> Bytes {
    super::value::value_of(balance)
}

fn balance(held: Option<&Versioned>) -> Option<u64> {
    super::value::number_of(&held?.value)
}

/// Opens all accounts at once, unless they are open.
pub(super) async fn open(store: &Store) -> Result<()> {
    let mut transaction = Transaction::new().when(key(0), Expect::Absent);
    for account in 0..ACCOUNTS {
        transaction = transaction.put(key(account), value(BALANCE));
    }
    store.transact(transaction).await?;
    match sum(store).await? {
        Answer::Balances(balances) if balances.iter().sum::<u64>() == ACCOUNTS * BALANCE => Ok(()),
        other => bail!("the accounts were opened and hold {other:?}"),
    }
}

/// Moves an amount between two accounts, if neither has changed since it was read.
pub(super) async fn transfer(
    store: &Store,
    from: u64,
    to: u64,
    amount: u64,
) -> Result<Answer, OperationError> {
    let (source, target) = (store.get(key(from)), store.get(key(to)));
    let (source, target) = (source.await?, target.await?);
    let (Some(source_balance), Some(target_balance)) = (balance(source.as_ref()), balance(target.as_ref()))
    else {
        return Ok(Answer::Wrong(format!("accounts {from} and {to} hold {source:?} and {target:?}")));
    };
    let (Some(source), Some(target)) = (source, target) else { return Ok(Answer::Transferred(false)) };
    let Some(rest) = source_balance.checked_sub(amount) else { return Ok(Answer::Transferred(false)) };
    let transaction = Transaction::new()
        .when(key(from), Expect::Revision(source.revision))
        .when(key(to), Expect::Revision(target.revision))
        .put(key(from), value(rest))
        .put(key(to), value(target_balance + amount));
    Ok(Answer::Transferred(store.transact(transaction).await?.held))
}

/// The balances of all accounts at one moment.
pub(super) async fn sum(store: &Store) -> Result<Answer, OperationError> {
    let page = store.range(RangeQuery::prefix("bank/")).await?;
    let balances: Option<Vec<u64>> =
        page.entries.iter().map(|entry| super::value::number_of(&entry.value)).collect();
    Ok(match balances {
        Some(balances) => Answer::Balances(balances),
        None => Answer::Wrong("an account holds a balance that nobody wrote".to_owned()),
    })
}
