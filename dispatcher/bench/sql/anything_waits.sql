-- Whether anything waits that is due.
SELECT EXISTS (SELECT FROM dispatcher.queue WHERE app = 'default' AND priority = 5 AND due_at <= now())
