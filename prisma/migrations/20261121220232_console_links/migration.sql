-- CreateTable
CREATE TABLE "console_links" (
    "hash" BYTEA NOT NULL,
    "server_id" UUID NOT NULL,
    "external_id" TEXT NOT NULL,
    "customer_id" UUID,
    "principal_kind" TEXT NOT NULL,
    "principal_id" TEXT NOT NULL,
    "via" TEXT,
    "source" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "used_at" TIMESTAMPTZ(3),

    CONSTRAINT "console_links_pkey" PRIMARY KEY ("hash")
);

-- CreateIndex
CREATE INDEX "console_links_expires_at_idx" ON "console_links"("expires_at");

-- AddForeignKey
ALTER TABLE "console_links" ADD CONSTRAINT "console_links_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "servers"("id") ON DELETE CASCADE ON UPDATE CASCADE;

ALTER TABLE "console_links" ADD CONSTRAINT "console_links_principal_known" CHECK (principal_kind IN ('staff', 'customer', 'system'));
