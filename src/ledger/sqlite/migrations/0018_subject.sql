-- Whom an OpenID provider knows a user as: issuer and subject. A name may be another person's some day, a subject never is.
ALTER TABLE users ADD COLUMN subject TEXT;
