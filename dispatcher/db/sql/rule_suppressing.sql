-- Whether any number is suppressed.
SELECT EXISTS (SELECT FROM dispatcher.suppression)
