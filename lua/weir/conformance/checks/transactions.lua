--- Transactions.
-- @module weir.conformance.checks.transactions

local tasks = require("weir.task")

local function start(t)
  local broker = t:broker()
  local name = t:subject(broker)
  return t:subscribe(broker, name), broker:publisher(), name, broker
end

local function begin(t, publisher)
  local transaction, err = publisher:transaction()
  return t:check_that(transaction, "publisher:transaction() failed: %s", tostring(err))
end

local function commit(t, transaction)
  local ok, err = transaction:commit(t.timeouts.step)
  t:check_that(ok, "commit() failed: %s", tostring(err))
end

return {
  {
    name = "invisible_before_commit",
    proves = "what a transaction publishes is invisible before the commit, and there in order after it",
    needs = { "transactions" },
    run = function(t)
      local subscription, publisher, name = start(t)
      local transaction = begin(t, publisher)
      t:publish_many(transaction, name, 5)
      t:nothing(subscription, "before the commit")
      commit(t, transaction)
      t:same_list("after the commit", { "1", "2", "3", "4", "5" }, t:take_many(subscription, 5))
    end,
  },
  {
    name = "abort_discards",
    proves = "an aborted transaction publishes nothing",
    needs = { "transactions" },
    run = function(t)
      local subscription, publisher, name = start(t)
      local transaction = begin(t, publisher)
      t:publish_many(transaction, name, 3)
      t:check_that(transaction:abort(), "abort() failed")
      t:nothing(subscription, "after the abort")
    end,
  },
  {
    name = "over_is_over",
    proves = "after its commit or abort a transaction gives \"no_transaction\"",
    needs = { "transactions" },
    run = function(t)
      local subscription, publisher, name = start(t)
      for _, how in ipairs({ "commit", "abort" }) do
        local transaction = begin(t, publisher)
        t:publish(transaction, name, how)
        t:check_that(transaction[how](transaction), "%s failed", how)
        t:refused("commit() after " .. how, "no_transaction", transaction:commit())
        t:refused("abort() after " .. how, "no_transaction", transaction:abort())
        t:refused("publish() after " .. how, "no_transaction", transaction:publish(name, "x"))
      end
      t:take(subscription, "commit")
      t:nothing(subscription, "after a commit and an abort")
    end,
  },
  {
    name = "independent",
    proves = "transactions are independent of each other and of what is published directly",
    needs = { "transactions" },
    run = function(t)
      local subscription, publisher, name = start(t)
      local first, second = begin(t, publisher), begin(t, publisher)
      t:publish(first, name, "first")
      t:publish(second, name, "second")
      t:publish(publisher, name, "direct")
      t:take(subscription, "direct")
      t:nothing(subscription, "while both are open")
      t:check_that(first:abort(), "abort() failed")
      commit(t, second)
      t:take(subscription, "second")
      t:nothing(subscription, "after the second was committed")
    end,
  },
  {
    name = "commit_from_anywhere",
    proves = "a transaction may be committed where it was not begun",
    needs = { "transactions" },
    run = function(t)
      local subscription, publisher, name = start(t)
      for _, place in ipairs(t:places()) do
        local transaction = begin(t, publisher)
        t:publish(transaction, name, place[1])
        place[2](t, function()
          commit(t, transaction)
        end)
        t:take(subscription, place[1])
      end
    end,
  },
  {
    name = "all_or_none",
    proves = "what the broker refuses leaves the transaction without it, and an error says so",
    needs = { "transactions" },
    run = function(t)
      local subscription, publisher, name = start(t)
      local transaction = begin(t, publisher)
      t:publish(transaction, name, "good")
      t:refused("publish() with an unknown option", "unsupported",
        transaction:publish(name, "bad", nil, { ["no such option"] = 1 }))
      commit(t, transaction)
      t:take(subscription, "good")
      t:nothing(subscription, "what was refused")
    end,
  },
  {
    name = "after_shutdown",
    proves = "after shutdown() neither publish() nor commit() of an open transaction pretends to work",
    needs = { "transactions" },
    run = function(t)
      local _, publisher, name, broker = start(t)
      local transaction = begin(t, publisher)
      t:publish(transaction, name, "x")
      broker:shutdown(t.timeouts.step)
      t:refused("publish()", { "closed", "no_transaction" }, transaction:publish(name, "x"))
      t:refused("commit()", { "closed", "no_transaction" }, tasks.spawn(transaction.commit, transaction, 1):join())
      t:refused("a new transaction", "closed", publisher:transaction())
    end,
  },
}
