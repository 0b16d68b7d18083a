-- Whether Vapi set the SMS webhook of a number, as Vapi last said it. Adds only: the release before it runs on this schema.
ALTER TABLE phone_numbers ADD COLUMN sms_at_vapi TEXT;   -- enabled, disabled, absent; NULL: never read
ALTER TABLE phone_numbers ADD COLUMN sms_read_at INTEGER;
