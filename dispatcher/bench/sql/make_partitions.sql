-- Make the partitions that the next messages need.
SELECT dispatcher.make_partitions()
