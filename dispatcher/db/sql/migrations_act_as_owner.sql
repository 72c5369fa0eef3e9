-- Act as the owner of the schema, if that is somebody else and we may: what a migration makes is
-- then his, whoever runs it. Until the end of the transaction ($1), or until RESET ROLE. In a
-- restored or copied database he has not the right that making a schema takes, and we act ourselves.
SELECT set_config('role', r.rolname, $1)
FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
WHERE n.nspname = 'dispatcher' AND r.rolname <> current_user
  AND pg_has_role(current_user, r.oid, 'MEMBER')
  AND has_database_privilege(r.oid, current_database(), 'CREATE')
