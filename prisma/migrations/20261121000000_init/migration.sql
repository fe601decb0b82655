-- Every statement takes the time from here; tests move it. STABLE, so that an index on a due time is used.
CREATE FUNCTION clock() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT statement_timestamp() $$;
-- CreateTable
CREATE TABLE "secrets" (
    "id" UUID NOT NULL,
    "kind" TEXT NOT NULL,
    "key_id" TEXT NOT NULL,
    "wrapped_key" BYTEA NOT NULL,
    "nonce" BYTEA NOT NULL,
    "ciphertext" BYTEA NOT NULL,
    "aad" TEXT NOT NULL,
    "operation_id" UUID,
    "expires_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),

    CONSTRAINT "secrets_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "customers" (
    "id" UUID NOT NULL,
    "ref" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "email" TEXT,
    "max_servers" INTEGER,
    "closed_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),

    CONSTRAINT "customers_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "clouds" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "provider" TEXT NOT NULL,
    "retired_at" TIMESTAMPTZ(3),
    "watcher" TEXT,
    "watcher_until" TIMESTAMPTZ(3),
    "last_ok_at" TIMESTAMPTZ(3),
    "last_problem" JSONB,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),

    CONSTRAINT "clouds_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "plans" (
    "id" UUID NOT NULL,
    "code" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "vcpus" INTEGER NOT NULL,
    "memory_mib" INTEGER NOT NULL,
    "disk_gib" INTEGER NOT NULL,
    "targets" JSONB NOT NULL,
    "retired_at" TIMESTAMPTZ(3),

    CONSTRAINT "plans_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "flavors" (
    "id" UUID NOT NULL,
    "cloud_id" UUID NOT NULL,
    "external_id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "vcpus" INTEGER NOT NULL,
    "memory_mib" INTEGER NOT NULL,
    "disk_gib" INTEGER NOT NULL,
    "is_public" BOOLEAN NOT NULL DEFAULT true,
    "missed_passes" INTEGER NOT NULL DEFAULT 0,
    "disabled_at" TIMESTAMPTZ(3),
    "synced_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "flavors_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "images" (
    "id" UUID NOT NULL,
    "cloud_id" UUID NOT NULL,
    "external_id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "status" TEXT NOT NULL,
    "min_memory_mib" INTEGER NOT NULL DEFAULT 0,
    "min_disk_gib" INTEGER NOT NULL DEFAULT 0,
    "has_agent" BOOLEAN,
    "default_user" TEXT,
    "missed_passes" INTEGER NOT NULL DEFAULT 0,
    "disabled_at" TIMESTAMPTZ(3),
    "synced_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "images_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "networks" (
    "id" UUID NOT NULL,
    "cloud_id" UUID NOT NULL,
    "external_id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "status" TEXT NOT NULL,
    "is_external" BOOLEAN NOT NULL DEFAULT false,
    "is_shared" BOOLEAN NOT NULL DEFAULT false,
    "missed_passes" INTEGER NOT NULL DEFAULT 0,
    "disabled_at" TIMESTAMPTZ(3),
    "synced_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "networks_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "servers" (
    "id" UUID NOT NULL,
    "public_id" TEXT NOT NULL,
    "customer_id" UUID,
    "cloud_id" UUID NOT NULL,
    "external_id" TEXT,
    "name" TEXT NOT NULL,
    "plan_code" TEXT,
    "image_name" TEXT,
    "state" TEXT NOT NULL,
    "provider_status" TEXT,
    "vcpus" INTEGER NOT NULL,
    "memory_mib" INTEGER NOT NULL,
    "disk_gib" INTEGER NOT NULL,
    "addresses" TEXT[],
    "metadata" JSONB NOT NULL DEFAULT '{}',
    "has_agent" BOOLEAN,
    "suspended_at" TIMESTAMPTZ(3),
    "event_seq" BIGINT NOT NULL DEFAULT 0,
    "synced_at" TIMESTAMPTZ(3),
    "missing_since" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),
    "deleted_at" TIMESTAMPTZ(3),

    CONSTRAINT "servers_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "operations" (
    "id" UUID NOT NULL,
    "public_id" TEXT NOT NULL,
    "action" TEXT NOT NULL,
    "spec_version" INTEGER NOT NULL,
    "state" TEXT NOT NULL,
    "input" JSONB NOT NULL,
    "plan" JSONB NOT NULL,
    "plan_hash" TEXT NOT NULL,
    "output" JSONB NOT NULL DEFAULT '{}',
    "problem" JSONB,
    "end_state" TEXT,
    "server_id" UUID,
    "customer_id" UUID,
    "cloud_id" UUID,
    "lock_key" TEXT,
    "idempotency_key" TEXT NOT NULL,
    "request_hash" TEXT NOT NULL,
    "requester_kind" TEXT NOT NULL,
    "requester_id" TEXT NOT NULL,
    "requester_name" TEXT NOT NULL,
    "source" TEXT NOT NULL,
    "retries_of" UUID,
    "version" INTEGER NOT NULL DEFAULT 1,
    "log_seq" INTEGER NOT NULL DEFAULT 0,
    "fence" INTEGER NOT NULL DEFAULT 0,
    "lease_by" TEXT,
    "lease_until" TIMESTAMPTZ(3),
    "next_run_at" TIMESTAMPTZ(3),
    "expires_at" TIMESTAMPTZ(3),
    "cancel_requested_at" TIMESTAMPTZ(3),
    "cancel_requested_by" TEXT,
    "confirmed_by" TEXT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),
    "started_at" TIMESTAMPTZ(3),
    "finished_at" TIMESTAMPTZ(3),

    CONSTRAINT "operations_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "operation_steps" (
    "operation_id" UUID NOT NULL,
    "seq" INTEGER NOT NULL,
    "name" TEXT NOT NULL,
    "label" TEXT NOT NULL,
    "state" TEXT NOT NULL DEFAULT 'planned',
    "compensates" INTEGER,
    "input" JSONB NOT NULL,
    "attempt" INTEGER NOT NULL DEFAULT 0,
    "in_doubt" BOOLEAN NOT NULL DEFAULT false,
    "reference" JSONB,
    "output" JSONB,
    "problem" JSONB,
    "issued_at" TIMESTAMPTZ(3),
    "call_deadline" TIMESTAMPTZ(3),
    "deadline_at" TIMESTAMPTZ(3),
    "started_at" TIMESTAMPTZ(3),
    "finished_at" TIMESTAMPTZ(3),

    CONSTRAINT "operation_steps_pkey" PRIMARY KEY ("operation_id","seq")
);

-- CreateTable
CREATE TABLE "operation_log" (
    "operation_id" UUID NOT NULL,
    "seq" INTEGER NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),
    "level" TEXT NOT NULL,
    "audience" TEXT NOT NULL DEFAULT 'everyone',
    "text" TEXT NOT NULL,

    CONSTRAINT "operation_log_pkey" PRIMARY KEY ("operation_id","seq")
);

-- CreateTable
CREATE TABLE "waits" (
    "id" UUID NOT NULL,
    "operation_id" UUID NOT NULL,
    "step_seq" INTEGER NOT NULL,
    "cloud_id" UUID NOT NULL,
    "condition" JSONB NOT NULL,
    "since" TIMESTAMPTZ(3) NOT NULL,
    "deadline_at" TIMESTAMPTZ(3) NOT NULL,
    "observed_at" TIMESTAMPTZ(3),
    "note" TEXT,
    "result" JSONB,
    "resolved_at" TIMESTAMPTZ(3),

    CONSTRAINT "waits_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "slots" (
    "cloud_id" UUID NOT NULL,
    "n" INTEGER NOT NULL,
    "operation_id" UUID,

    CONSTRAINT "slots_pkey" PRIMARY KEY ("cloud_id","n")
);

-- CreateTable
CREATE TABLE "events" (
    "id" UUID NOT NULL,
    "type" TEXT NOT NULL,
    "server_id" UUID,
    "sequence" BIGINT,
    "operation_id" UUID,
    "customer_id" UUID,
    "data" JSONB NOT NULL,
    "staff_data" JSONB NOT NULL DEFAULT '{}',
    "position" BIGINT,
    "occurred_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),

    CONSTRAINT "events_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "endpoints" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "url" TEXT NOT NULL,
    "event_types" TEXT[],
    "format" TEXT NOT NULL DEFAULT 'standard',
    "customer_id" UUID,
    "secret_id" UUID NOT NULL,
    "timeout_ms" INTEGER NOT NULL DEFAULT 15000,
    "disabled_at" TIMESTAMPTZ(3),
    "disabled_reason" TEXT,
    "paused_until" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),

    CONSTRAINT "endpoints_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "deliveries" (
    "id" UUID NOT NULL,
    "endpoint_id" UUID NOT NULL,
    "event_id" UUID NOT NULL,
    "state" TEXT NOT NULL DEFAULT 'pending',
    "attempt_count" INTEGER NOT NULL DEFAULT 0,
    "next_attempt_at" TIMESTAMPTZ(3),
    "lease_by" TEXT,
    "lease_until" TIMESTAMPTZ(3),
    "delivered_at" TIMESTAMPTZ(3),

    CONSTRAINT "deliveries_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "attempts" (
    "delivery_id" UUID NOT NULL,
    "n" INTEGER NOT NULL,
    "started_at" TIMESTAMPTZ(3) NOT NULL,
    "duration_ms" INTEGER NOT NULL,
    "http_status" INTEGER,
    "outcome" TEXT NOT NULL,
    "error" TEXT,
    "response" TEXT,

    CONSTRAINT "attempts_pkey" PRIMARY KEY ("delivery_id","n")
);

-- CreateTable
CREATE TABLE "cards" (
    "id" UUID NOT NULL,
    "operation_id" UUID NOT NULL,
    "platform" TEXT NOT NULL,
    "workspace" TEXT NOT NULL,
    "channel" TEXT NOT NULL,
    "user_id" TEXT,
    "audience" TEXT NOT NULL DEFAULT 'staff',
    "message_ref" TEXT,
    "shown_version" INTEGER NOT NULL DEFAULT 0,
    "shown_log" INTEGER NOT NULL DEFAULT 0,
    "announced" BOOLEAN NOT NULL DEFAULT false,
    "problem" TEXT,
    "failures" INTEGER NOT NULL DEFAULT 0,
    "lease_by" TEXT,
    "lease_until" TIMESTAMPTZ(3),
    "next_try_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),

    CONSTRAINT "cards_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "capabilities" (
    "token" TEXT NOT NULL,
    "operation_id" UUID NOT NULL,
    "action" TEXT NOT NULL,
    "input" JSONB NOT NULL,
    "offered_in" TEXT NOT NULL,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "used_at" TIMESTAMPTZ(3),
    "used_by" TEXT,

    CONSTRAINT "capabilities_pkey" PRIMARY KEY ("token")
);

-- CreateTable
CREATE TABLE "sync_runs" (
    "id" UUID NOT NULL,
    "cloud_id" UUID NOT NULL,
    "resource" TEXT NOT NULL,
    "state" TEXT NOT NULL,
    "requester" TEXT NOT NULL,
    "seen" INTEGER NOT NULL DEFAULT 0,
    "created" INTEGER NOT NULL DEFAULT 0,
    "updated" INTEGER NOT NULL DEFAULT 0,
    "missing" INTEGER NOT NULL DEFAULT 0,
    "errors" JSONB NOT NULL DEFAULT '[]',
    "started_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),
    "lease_until" TIMESTAMPTZ(3) NOT NULL,
    "finished_at" TIMESTAMPTZ(3),

    CONSTRAINT "sync_runs_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "audit_entries" (
    "seq" BIGSERIAL NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),
    "principal_kind" TEXT NOT NULL,
    "principal_id" TEXT NOT NULL,
    "principal_name" TEXT NOT NULL,
    "source" TEXT NOT NULL,
    "action" TEXT NOT NULL,
    "subject" TEXT,
    "customer_id" UUID,
    "operation_id" UUID,
    "outcome" TEXT NOT NULL,
    "reason" TEXT,
    "data" JSONB NOT NULL DEFAULT '{}',
    "previous_hash" TEXT NOT NULL DEFAULT '',
    "hash" TEXT NOT NULL DEFAULT '',

    CONSTRAINT "audit_entries_pkey" PRIMARY KEY ("seq")
);

-- CreateIndex
CREATE INDEX "secrets_expires_at_idx" ON "secrets"("expires_at");

-- CreateIndex
CREATE INDEX "secrets_operation_id_idx" ON "secrets"("operation_id");

-- CreateIndex
CREATE UNIQUE INDEX "customers_ref_key" ON "customers"("ref");

-- CreateIndex
CREATE UNIQUE INDEX "clouds_name_key" ON "clouds"("name");

-- CreateIndex
CREATE UNIQUE INDEX "plans_code_key" ON "plans"("code");

-- CreateIndex
CREATE UNIQUE INDEX "flavors_cloud_id_external_id_key" ON "flavors"("cloud_id", "external_id");

-- CreateIndex
CREATE UNIQUE INDEX "images_cloud_id_external_id_key" ON "images"("cloud_id", "external_id");

-- CreateIndex
CREATE UNIQUE INDEX "networks_cloud_id_external_id_key" ON "networks"("cloud_id", "external_id");

-- CreateIndex
CREATE UNIQUE INDEX "servers_public_id_key" ON "servers"("public_id");

-- CreateIndex
CREATE INDEX "servers_customer_id_state_idx" ON "servers"("customer_id", "state");

-- CreateIndex
CREATE UNIQUE INDEX "server_external_live" ON "servers"("cloud_id", "external_id") WHERE ("deleted_at" IS NULL);

-- CreateIndex
CREATE UNIQUE INDEX "operations_public_id_key" ON "operations"("public_id");

-- CreateIndex
CREATE UNIQUE INDEX "operations_idempotency_key_key" ON "operations"("idempotency_key");

-- CreateIndex
CREATE INDEX "operation_due" ON "operations"("next_run_at") WHERE ("next_run_at" IS NOT NULL);

-- CreateIndex
CREATE INDEX "operations_customer_id_created_at_idx" ON "operations"("customer_id", "created_at");

-- CreateIndex
CREATE INDEX "operations_server_id_created_at_idx" ON "operations"("server_id", "created_at");

-- CreateIndex
CREATE INDEX "operations_state_created_at_idx" ON "operations"("state", "created_at");

-- CreateIndex
CREATE UNIQUE INDEX "operation_lock_live" ON "operations"("lock_key") WHERE (state = ANY (ARRAY['queued'::text, 'running'::text, 'waiting'::text, 'compensating'::text, 'needs_attention'::text]));

-- CreateIndex
CREATE INDEX "wait_open_by_cloud" ON "waits"("cloud_id") WHERE ("resolved_at" IS NULL);

-- CreateIndex
CREATE UNIQUE INDEX "wait_open" ON "waits"("operation_id", "step_seq") WHERE ("resolved_at" IS NULL);

-- CreateIndex
CREATE UNIQUE INDEX "slots_operation_id_key" ON "slots"("operation_id");

-- CreateIndex
CREATE UNIQUE INDEX "events_position_key" ON "events"("position");

-- CreateIndex
CREATE INDEX "event_outbox" ON "events"("occurred_at") WHERE ("position" IS NULL);

-- CreateIndex
CREATE UNIQUE INDEX "events_server_id_sequence_key" ON "events"("server_id", "sequence");

-- CreateIndex
CREATE UNIQUE INDEX "endpoints_name_key" ON "endpoints"("name");

-- CreateIndex
CREATE INDEX "delivery_due" ON "deliveries"("next_attempt_at") WHERE (state = 'pending'::text);

-- CreateIndex
CREATE UNIQUE INDEX "deliveries_endpoint_id_event_id_key" ON "deliveries"("endpoint_id", "event_id");

-- CreateIndex
CREATE INDEX "cards_operation_id_idx" ON "cards"("operation_id");

-- CreateIndex
CREATE UNIQUE INDEX "capabilities_operation_id_action_offered_in_key" ON "capabilities"("operation_id", "action", "offered_in");

-- CreateIndex
CREATE INDEX "sync_runs_cloud_id_resource_started_at_idx" ON "sync_runs"("cloud_id", "resource", "started_at");

-- CreateIndex
CREATE UNIQUE INDEX "sync_no_overlap" ON "sync_runs"("cloud_id", "resource") WHERE ("state" = 'running');

-- CreateIndex
CREATE INDEX "audit_entries_operation_id_idx" ON "audit_entries"("operation_id");

-- CreateIndex
CREATE INDEX "audit_entries_principal_id_at_idx" ON "audit_entries"("principal_id", "at");

-- AddForeignKey
ALTER TABLE "flavors" ADD CONSTRAINT "flavors_cloud_id_fkey" FOREIGN KEY ("cloud_id") REFERENCES "clouds"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "images" ADD CONSTRAINT "images_cloud_id_fkey" FOREIGN KEY ("cloud_id") REFERENCES "clouds"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "networks" ADD CONSTRAINT "networks_cloud_id_fkey" FOREIGN KEY ("cloud_id") REFERENCES "clouds"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "servers" ADD CONSTRAINT "servers_customer_id_fkey" FOREIGN KEY ("customer_id") REFERENCES "customers"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "servers" ADD CONSTRAINT "servers_cloud_id_fkey" FOREIGN KEY ("cloud_id") REFERENCES "clouds"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "operations" ADD CONSTRAINT "operations_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "servers"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "operations" ADD CONSTRAINT "operations_customer_id_fkey" FOREIGN KEY ("customer_id") REFERENCES "customers"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "operations" ADD CONSTRAINT "operations_cloud_id_fkey" FOREIGN KEY ("cloud_id") REFERENCES "clouds"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "operation_steps" ADD CONSTRAINT "operation_steps_operation_id_fkey" FOREIGN KEY ("operation_id") REFERENCES "operations"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "operation_log" ADD CONSTRAINT "operation_log_operation_id_fkey" FOREIGN KEY ("operation_id") REFERENCES "operations"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "waits" ADD CONSTRAINT "waits_operation_id_fkey" FOREIGN KEY ("operation_id") REFERENCES "operations"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "slots" ADD CONSTRAINT "slots_cloud_id_fkey" FOREIGN KEY ("cloud_id") REFERENCES "clouds"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "slots" ADD CONSTRAINT "slots_operation_id_fkey" FOREIGN KEY ("operation_id") REFERENCES "operations"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "events" ADD CONSTRAINT "events_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "servers"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "events" ADD CONSTRAINT "events_operation_id_fkey" FOREIGN KEY ("operation_id") REFERENCES "operations"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "deliveries" ADD CONSTRAINT "deliveries_endpoint_id_fkey" FOREIGN KEY ("endpoint_id") REFERENCES "endpoints"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "deliveries" ADD CONSTRAINT "deliveries_event_id_fkey" FOREIGN KEY ("event_id") REFERENCES "events"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "attempts" ADD CONSTRAINT "attempts_delivery_id_fkey" FOREIGN KEY ("delivery_id") REFERENCES "deliveries"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "cards" ADD CONSTRAINT "cards_operation_id_fkey" FOREIGN KEY ("operation_id") REFERENCES "operations"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "sync_runs" ADD CONSTRAINT "sync_runs_cloud_id_fkey" FOREIGN KEY ("cloud_id") REFERENCES "clouds"("id") ON DELETE CASCADE ON UPDATE CASCADE;


-- States are closed sets.
ALTER TABLE "servers" ADD CONSTRAINT "servers_state_known" CHECK ("state" IN ('pending', 'building', 'active', 'stopped', 'paused', 'suspended', 'resizing', 'verify_resize', 'rebuilding', 'rescue', 'error', 'deleting', 'deleted', 'missing', 'unknown'));
ALTER TABLE "operations" ADD CONSTRAINT "operations_state_known" CHECK ("state" IN ('awaiting_confirmation', 'awaiting_approval', 'queued', 'running', 'waiting', 'compensating', 'succeeded', 'failed', 'cancelled', 'expired', 'needs_attention'));
ALTER TABLE "operations" ADD CONSTRAINT "operations_end_state_known" CHECK ("end_state" IN ('failed', 'cancelled'));
ALTER TABLE "operation_steps" ADD CONSTRAINT "operation_steps_state_known" CHECK ("state" IN ('planned', 'intent', 'waiting', 'done', 'failed', 'skipped'));
ALTER TABLE "deliveries" ADD CONSTRAINT "deliveries_state_known" CHECK ("state" IN ('pending', 'delivered', 'dead'));
ALTER TABLE "sync_runs" ADD CONSTRAINT "sync_runs_state_known" CHECK ("state" IN ('running', 'completed', 'partial', 'aborted', 'failed'));
ALTER TABLE "events" ADD CONSTRAINT "events_server_has_sequence" CHECK (("server_id" IS NULL) = ("sequence" IS NULL));

-- One live server per customer and name, however it is spelled: an order typed twice is answered with the first one.
CREATE UNIQUE INDEX "server_live_name" ON "servers" ("customer_id", lower("name")) WHERE "deleted_at" IS NULL AND "customer_id" IS NOT NULL;

-- The audit trail is append-only, and each entry carries the hash of the one before. The advisory lock makes the chain
-- a chain under concurrent writers; write the audit entry last in its transaction.
CREATE FUNCTION audit_chain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(72707370);
  SELECT COALESCE((SELECT "hash" FROM "audit_entries" ORDER BY "seq" DESC LIMIT 1), '') INTO NEW."previous_hash";
  NEW."seq" := nextval(pg_get_serial_sequence('audit_entries', 'seq'));
  NEW."hash" := encode(sha256(convert_to(concat_ws('|', NEW."previous_hash", NEW."seq", extract(epoch FROM NEW."at")::numeric(20, 3), NEW."principal_kind", NEW."principal_id", NEW."principal_name", NEW."source", NEW."action", coalesce(NEW."subject", ''), coalesce(NEW."customer_id"::text, ''), coalesce(NEW."operation_id"::text, ''), NEW."outcome", coalesce(NEW."reason", ''), NEW."data"::text), 'UTF8')), 'hex');
  RETURN NEW;
END $$;
CREATE TRIGGER "audit_entries_chain" BEFORE INSERT ON "audit_entries" FOR EACH ROW EXECUTE FUNCTION audit_chain();

CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit_entries is append-only';
END $$;
CREATE TRIGGER "audit_entries_append_only" BEFORE UPDATE OR DELETE ON "audit_entries" FOR EACH ROW EXECUTE FUNCTION audit_append_only();

-- A fact does not change; only its position in the feed is given later.
CREATE FUNCTION event_is_fact() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF ROW(OLD."id", OLD."type", OLD."server_id", OLD."sequence", OLD."operation_id", OLD."customer_id", OLD."data", OLD."staff_data", OLD."occurred_at")
     IS DISTINCT FROM ROW(NEW."id", NEW."type", NEW."server_id", NEW."sequence", NEW."operation_id", NEW."customer_id", NEW."data", NEW."staff_data", NEW."occurred_at")
     OR (OLD."position" IS NOT NULL AND NEW."position" IS DISTINCT FROM OLD."position") THEN
    RAISE EXCEPTION 'an event is not changed after it was recorded';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER "events_are_facts" BEFORE UPDATE ON "events" FOR EACH ROW EXECUTE FUNCTION event_is_fact();
