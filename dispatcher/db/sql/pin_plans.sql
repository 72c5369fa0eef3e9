-- Pin the planner for the rest of this transaction: tables that fill within minutes make statistics
-- lie, and a plan made for an empty table would be kept for a full one. Every statement that is run
-- so has an index for what it looks for. (What a claim pins is in app_state.)
SELECT
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('jit', 'off', true)
