-- Make partitions ahead of need; returns how many.
SELECT dispatcher.make_partitions()
