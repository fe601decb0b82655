-- A healthy endpoint's next delivery must not be searched for behind another endpoint's backlog.
CREATE INDEX "delivery_lane" ON "deliveries"("endpoint_id", "next_attempt_at") WHERE (state = 'pending'::text);

-- What is under way to an endpoint: a handful of rows, whatever the backlog.
CREATE INDEX "delivery_leased" ON "deliveries"("endpoint_id", "lease_until") WHERE ("lease_by" IS NOT NULL);
