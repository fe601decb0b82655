-- CreateTable
CREATE TABLE "address_claims" (
    "cloud_id" UUID NOT NULL,
    "address" TEXT NOT NULL,
    "server_id" UUID NOT NULL,
    "held_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock(),

    CONSTRAINT "address_claims_pkey" PRIMARY KEY ("cloud_id","address")
);

-- CreateIndex
CREATE INDEX "address_claims_server_id_idx" ON "address_claims"("server_id");

-- AddForeignKey
ALTER TABLE "address_claims" ADD CONSTRAINT "address_claims_cloud_id_fkey" FOREIGN KEY ("cloud_id") REFERENCES "clouds"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "address_claims" ADD CONSTRAINT "address_claims_server_id_fkey" FOREIGN KEY ("server_id") REFERENCES "servers"("id") ON DELETE CASCADE ON UPDATE CASCADE;
