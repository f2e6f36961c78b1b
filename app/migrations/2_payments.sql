-- Up Migration
-- Rather fail than keep the service waiting behind this one.
SET LOCAL lock_timeout = '5s';
ALTER TABLE orders
  ADD COLUMN payment_id text,
  ADD COLUMN paid_at timestamptz;

-- Down Migration
SET LOCAL lock_timeout = '5s';
ALTER TABLE orders
  DROP COLUMN payment_id,
  DROP COLUMN paid_at;
