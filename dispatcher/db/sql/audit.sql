-- Write down what somebody did, in the transaction that does it.
-- $1 who, $2 action, $3 target, $4 detail, $5 result
INSERT INTO dispatcher.audit (who, action, target, detail, result) VALUES ($1, $2, $3, $4, $5)
